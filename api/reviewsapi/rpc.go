package reviewsapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	summaries = rpc.NewMethod[SummariesRequest, Summaries]("reviews.Summaries", rpc.Idempotent)
	recent    = rpc.NewMethod[RecentRequest, List]("reviews.Recent", rpc.Idempotent)
)

type client struct{ conn *rpc.Conn }

// Dial is the reviews module, wherever it runs.
func Dial(d rpc.Dialer) Reviews { return client{d.Conn("reviews")} }

// Mount makes x answer calls of the contract.
func Mount(s *rpc.Server, x Reviews) {
	summaries.Handle(s, x.Summaries)
	recent.Handle(s, x.Recent)
}

func (c client) Summaries(ctx context.Context, r SummariesRequest) (Summaries, error) {
	return summaries.Call(ctx, c.conn, r)
}

func (c client) Recent(ctx context.Context, r RecentRequest) (List, error) {
	return recent.Call(ctx, c.conn, r)
}
