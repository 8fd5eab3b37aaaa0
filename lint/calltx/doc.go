// Package calltx defines an analyzer that keeps transactions short and at home.
//
// # Analyzer calltx
//
// calltx: refuse waiting for others inside a transaction, and transactions that travel
//
// Inside a transaction stand this module's tables and events.Publish, nothing else: while it is open it holds row locks and a
// connection, and everybody behind them waits with it. A scope is a function given to DB.InTx, pg.Once or events.On, and any
// function that takes a *pg.Tx. Inside a scope, and inside every function of the same package it calls, these are refused:
//
//   - a call of a contract (an interface of api/<m>api), direct, through rpc, or as a func value of that shape;
//   - HTTP, SMTP, dialling, and starting programs;
//   - time.Sleep and timers, waiting on a channel, a select or a WaitGroup, and starting a goroutine;
//   - a second transaction, or the pool (*pg.DB) itself: with all connections in such transactions, everybody waits for ever.
//
// What is given to tx.AfterCommit runs outside and is free.
//
// The transaction is an argument. It is not kept: no struct field, package variable, channel, context value or any; it is not
// returned, and it does not appear in a contract.
//
// The analyzer follows calls by name inside one package. It can't see through an interface of the module's own or a func in a
// field; those would be found by the slow-transaction alarm.
//
// Bad:
//
//	m.DB.InTx(ctx, func(tx *pg.Tx) error {
//		p, err := m.Payments.Authorize(ctx, r)
//
// Good:
//
//	p, err := m.Payments.Authorize(ctx, r)
//	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
package calltx
