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

// budget limits a load in count and time. It always allows one job, because an empty load
// cannot be measured.
type budget struct {
	left    atomic.Int64
	started atomic.Bool // a job was taken
	until   time.Time   // zero for no time limit
}

func newBudget(jobs int, d time.Duration) *budget {
	b := &budget{}
	b.left.Store(int64(jobs))
	if d > 0 {
		b.until = time.Now().Add(d)
	}
	return b
}

// take takes one job from the budget and reports whether it could.
func (b *budget) take() bool {
	first := b.started.CompareAndSwap(false, true)
	return (first || b.until.IsZero() || time.Now().Before(b.until)) && b.left.Add(-1) >= 0
}

// loadResult is the result of a load.
type loadResult struct {
	samples []time.Duration // durations of the answered requests
	refused int
}

// runLoad calls do in n goroutines until the budget is used up, ctx ends, or do fails.
// When the server is full, it counts the refusal, waits as long as the server asks, and
// uses a further job of the budget.
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
		// Without the wait the load would measure how fast the server refuses.
		b.waitFor(ctx, refusal.RetryAfter)
	}
	return nil
}

// waitFor waits as long as the server asked for, but not beyond the end of the budget.
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

// input returns an input for the executor sim of exactly this many bytes. The job returns
// it as its result.
func input(bytes int) json.RawMessage {
	const words = `{"duration_ms":0,"echo":"%s"}`
	return json.RawMessage(fmt.Sprintf(words, strings.Repeat("x", bytes-len(words)+len("%s"))))
}

// submission returns the job that every bench submits.
func (o *Options) submission() client.Submission {
	return client.Submission{Queue: "sim", Input: input(o.Payload)}
}

// The two HTTP clients of a load, as the report names them.
const (
	plainClientText = "the Go client as it comes (net/http)"
	leanClientText  = "the Go client over the bench's own HTTP/1.1 transport"
)

// dialFunc creates a client of a server and a function that closes it.
type dialFunc func(ctx context.Context, url string) (*client.Client, func(), error)

// dialPlain creates a client with default options, but without retries: a load counts
// its refusals, and a silent retry cannot be counted.
func dialPlain(_ context.Context, url string) (*client.Client, func(), error) {
	c, err := client.New(url, client.WithRetries(0))
	if err != nil {
		return nil, nil, err
	}
	return c, c.Close, nil
}

// dialLean creates a client that uses little CPU, so that the server limits the load and not
// the client. Its connections close when ctx ends.
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
	stopWatchingContext := context.AfterFunc(ctx, rt.close)
	return c, func() { stopWatchingContext(); rt.close() }, nil
}
