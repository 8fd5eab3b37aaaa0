// Package db holds the migrations of all modules, one folder a module. A new folder needs no edit here.
package db

import "embed"

// Migrations has the folders of the modules: orders/0001_orders.sql and so on, in goose's format.
//
//go:embed */*.sql
var Migrations embed.FS
