package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// budget bounds a load in count and time. However short the time is, and however slow
// the machine, it is enough for one: nothing can be said of a load that was none.
type budget struct {
	left    atomic.Int64
	started atomic.Bool // one was taken off
	until   time.Time   // zero for no end
}

func newBudget(jobs int, d time.Duration) *budget {
	b := &budget{}
	b.left.Store(int64(jobs))
	if d > 0 {
		b.until = time.Now().Add(d)
	}
	return b
}

// take takes one job off, and says whether there was one.
func (b *budget) take() bool {
	first := b.started.CompareAndSwap(false, true)
	return (first || b.until.IsZero() || time.Now().Before(b.until)) && b.left.Add(-1) >= 0
}

// loadResult is what a load met.
type loadResult struct {
	samples []time.Duration // of what was answered
	refused int
}

// runLoad runs do in n goroutines until the budget is used up, ctx ends, or one of
// them fails. What the server has no room for is counted, and asked again when it
// said; it takes another job off the budget.
func runLoad(ctx context.Context, n int, b *budget, do func(context.Context) error) (loadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := make([]loadResult, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := parts[i].run(ctx, b, do); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	var sum loadResult
	for _, p := range parts {
		sum.samples = append(sum.samples, p.samples...)
		sum.refused += p.refused
	}
	return sum, context.Cause(ctx)
}

func (o *loadResult) run(ctx context.Context, b *budget, do func(context.Context) error) error {
	for ctx.Err() == nil && b.take() {
		start := time.Now()
		err := do(ctx)
		if err == nil {
			o.samples = append(o.samples, time.Since(start))
			continue
		}
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Status != http.StatusServiceUnavailable && refusal.Status != http.StatusTooManyRequests {
			return err
		}
		o.refused++
		b.waitFor(ctx, refusal.RetryAfter)
	}
	return nil
}

// waitFor waits as long as the server asked for, but not beyond the budget.
func (b *budget) waitFor(ctx context.Context, d time.Duration) {
	if !b.until.IsZero() {
		d = min(d, time.Until(b.until))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// input is a job's input for the executor sim of exactly so many bytes, which the
// job gives back as its result.
func input(bytes int) json.RawMessage {
	const words = `{"duration_ms":0,"echo":"%s"}`
	return json.RawMessage(fmt.Sprintf(words, strings.Repeat("x", bytes-len(words)+len("%s"))))
}

// submission is the job that every bench submits.
func (o *Options) submission() client.Submission {
	return client.Submission{Queue: "sim", Input: input(o.Payload)}
}

// The two ways in which a load speaks HTTP.
const (
	plainClientText = "the Go client as it comes (net/http)"
	leanClientText  = "the Go client over the bench's own HTTP/1.1 transport"
)

// dialFunc makes a client of a server, and what lets go of it.
type dialFunc func(ctx context.Context, url string) (*client.Client, func(), error)

// dialPlain makes a client as users have it. It asks once, as every load does: what
// is repeated in silence cannot be counted.
func dialPlain(_ context.Context, url string) (*client.Client, func(), error) {
	c, err := client.New(url, client.WithRetries(0))
	if err != nil {
		return nil, nil, err
	}
	return c, c.Close, nil
}

// dialLean makes a client for load that the server is to be the bottleneck of. Its
// connections end with ctx.
func dialLean(ctx context.Context, base string) (*client.Client, func(), error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, nil, err
	}
	if u.Scheme != "http" {
		return nil, nil, fmt.Errorf("this bench speaks plain HTTP, not %s", u.Scheme)
	}
	rt := newLeanTransport(u.Host)
	c, err := client.New(base, client.WithTransport(rt), client.WithTimeout(0), client.WithRetries(0))
	if err != nil {
		return nil, nil, err
	}
	unhook := context.AfterFunc(ctx, rt.close)
	return c, func() { unhook(); rt.close() }, nil
}
