// Package driver defines an analyzer that keeps the database driver in one place and floats out of money.
//
// # Analyzer driver
//
// driver: refuse database drivers outside platform/pg, and floats in money
//
// The driver has edges that lose or double work, and platform/pg is where they are taken off. So it alone imports lib/pq, and
// only pg, migrate, pgembed and shoptest open a database by database/sql or sqlx. Other drivers are refused everywhere.
//
// Money is whole minor units. Refused are any float in a package named money, and, in modules, contracts and programs, a
// variable, field, parameter, result or conversion of a float type whose name, or whose operand's name or type, speaks of money:
// price, amount, total, subtotal, tax, vat, money, cost, fee, discount, refund, balance. Tests may compute with floats.
//
// Bad:
//
//	Price float64 `json:"price"`
//	share := float64(line.Total.Minor) / float64(all)
//
// Good:
//
//	Price money.Amount `json:"price"`
//	shares := all.Spread(weights)
package driver
