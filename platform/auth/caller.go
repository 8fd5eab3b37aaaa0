package auth

import "context"

// WithCaller is ctx as the callee of a contract call sees it: the identity it carries, with Module set to the caller. Only
// platform/rpc may call it, as with WithIdentity. It costs one allocation, since every call between modules pays for it.
func WithCaller(ctx context.Context, caller string) context.Context {
	c := &callerContext{Context: ctx}
	if id, ok := ctx.Value(identityKey{}).(*Identity); ok {
		c.id = *id
	}
	c.id.Module = caller
	return c
}

type callerContext struct {
	context.Context
	id Identity
}

func (c *callerContext) Value(key any) any {
	if _, ok := key.(identityKey); ok {
		return &c.id
	}
	return c.Context.Value(key)
}
