package kafka

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A rebalance tells each member what is taken from it, and that may be nothing.
func TestARebalanceThatTakesNothingStopsNothing(t *testing.T) {
	t.Parallel()
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1")) // connects to nobody before it is asked something
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	works := func() (*worker, context.Context) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		context.AfterFunc(ctx, func() { close(done) })
		return &worker{stop: stop, done: done}, ctx
	}
	stays, staying := works()
	goes, going := works()
	m := &member{name: &name{topic: "shop.topic"}, workers: map[int32]*worker{3: stays, 5: goes}}
	m.stop(client, nil)
	if staying.Err() != nil || going.Err() != nil {
		t.Error("workers stopped although nothing was taken")
	}
	m.stop(client, []int32{5})
	if going.Err() == nil || staying.Err() != nil {
		t.Error("not the worker of the partition that was taken stopped, and that alone")
	}
	m.stop(client, m.partitions())
	if staying.Err() == nil {
		t.Error("a worker outlived the member")
	}
}
