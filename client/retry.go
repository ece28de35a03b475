package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// Retry is a wait before another try, as [WithRetryHook] tells it.
type Retry struct {
	Try   int           // how many tries of this call have failed in a row
	Delay time.Duration // until the next
	Err   error         // why the last one failed
}

const (
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	// maxRetryAfter bounds how long a server may make a call wait before its next try;
	// asked for longer, the call fails with its RetryAfter.
	maxRetryAfter = 30 * time.Second
)

var errNoAnswer = errors.New("no answer in time")

// lost is the error of a call without an answer. Where ctx is why, it says so, and
// errors.Is finds [context.Canceled] or [context.DeadlineExceeded].
func (c *Client) noAnswer(ctx context.Context, k *call, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errNoAnswer) {
		return contextError(ctx, k)
	} else if cause != nil {
		err = cause
	}
	return &Error{Code: CodeUnreachable, Message: "cannot reach the server at " + c.base.String(), Err: err}
}

func contextError(ctx context.Context, k *call) error {
	return fmt.Errorf("client: %s %s: %w", k.method, k.path, context.Cause(ctx))
}

// repeatable says whether the call may be made again after err.
func safeToRetry(k *call, err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.RetryAfter > maxRetryAfter {
		return false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true // nothing was done
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return !k.notIdempotent
	case 0:
		return !k.notIdempotent || dialFailed(err)
	}
	return false
}

// neverSent says that there was not even a connection.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// away says that the server, or the way to it, is gone for now: a restart, a
// proxy without a server behind it. Whoever follows a job waits for its return.
func unavailable(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// pause waits before the next try: doubled each time, spread by a half so that
// clients which failed together do not come back together, and at least as long as
// the server asked for. The error is ctx's end; when ctx would end during the wait,
// err is returned at once instead.
func (c *Client) waitToRetry(ctx context.Context, try int, err error) error {
	d := min(minPause<<min(try-1, 10), maxPause)
	d = d/2 + rand.N(d/2+1)
	var e *Error
	if errors.As(err, &e) {
		d = max(d, min(e.RetryAfter, maxRetryAfter))
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return err
	}
	if c.onRetry != nil {
		c.onRetry(Retry{Try: try, Delay: d, Err: err})
	}
	return sleep(ctx, d)
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("client: while waiting to try again: %w", context.Cause(ctx))
	}
}
