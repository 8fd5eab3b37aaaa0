// Package boundary defines an analyzer that keeps every import running downwards.
//
// # Analyzer boundary
//
// boundary: refuse imports that cross a module's border
//
// Imports run cmd → modules → api → platform, never sideways from module to module nor from contract to contract:
//
//	modules/orders        may import its own folders, api/* and platform/*
//	api/ordersapi         may import its own folders and platform/*
//	api/ordersapi/orderstest  may import api/ordersapi and platform/*; only tests import it
//	platform/*            may import platform/*; errs, config, money, ids and telemetry only each other
//	cmd/shop              may import everything but other programs and lint
//	db                    holds the migrations and imports nothing of ours; cmd and platform/shoptest import it
//	lint/*                imports lint/* only
//
// Test files are held to the same rules; beyond them they may import platform/shoptest and api/xapi/xtest. Blank, dot and
// aliased imports count, whatever the quotes, and so do files that build tags leave out. A package that fits no layer is
// refused, so that a new folder can't stand beside the rules.
//
// Libraries the platform hides (echo, huma, watermill, connect, sqlx, lib/pq and other drivers) are for the platform package
// that hides them. A module does not make identities: a function of platform/auth that returns a context is for the platform.
//
// Bad:
//
//	package orders
//
//	import "shop/modules/payments"
//
// Good:
//
//	import "shop/api/paymentsapi"
package boundary
