// Package contract defines an analyzer that keeps contracts fit to travel.
//
// # Analyzer contract
//
// contract: refuse contracts that would not survive the wire
//
// A contract package api/ordersapi holds one or more interfaces, their structs, events, and rpc.go. A caller must not be able
// to tell whether the callee is in its process, so nothing may pass that JSON would lose or share:
//
//   - every method has the shape Order(ctx context.Context, r OrderRequest) (Order, error), both named structs of this package;
//   - structs hold strings, numbers, bools, time.Time, money.Amount, ids, structs, and slices, arrays or string-keyed maps of
//     such: no pointer, interface, any, func, channel, no unexported field, no complex, uintptr or json.RawMessage;
//   - every field has a json tag in snake_case; "-" would lose it;
//   - money is money.Amount: no float in a field that speaks of money (driver says the same of all code);
//   - types of modules and of other contracts stay out; an id of another module is ids.ID;
//   - every method is bound once: var order = rpc.NewMethod[OrderRequest, Order]("orders.Order", rpc.Idempotent), handled in
//     Mount and called in the client;
//   - every method is marked Idempotent or IdempotentByKey, since "no answer" must be answerable by asking again. IdempotentByKey
//     asks for a field Key string in the request. NotRepeatable needs a waiver with its reason.
//
// Events are held to the same rules for their fields.
package contract
