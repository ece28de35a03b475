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

// Retry describes the wait before another try of a call, for [WithRetryHook].
type Retry struct {
	Try   int           // number of failed tries in a row, from 1
	Delay time.Duration // time until the next try
	Err   error         // why the last try failed
}

const (
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	// maxRetryAfter is the longest wait that the server may ask for. When it asks for more,
	// the call fails and the caller decides, with the RetryAfter of the error.
	maxRetryAfter = 30 * time.Second
)

var errNoAnswer = errors.New("no answer in time")

// noAnswer returns the error of a call that got no answer. If ctx has ended, errors.Is
// finds [context.Canceled] or [context.DeadlineExceeded] in it. Otherwise it has the code
// [CodeUnreachable].
func (c *Client) noAnswer(ctx context.Context, k *call, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errNoAnswer) {
		return fmt.Errorf("client: %s %s: %w", k.method, k.path, cause)
	} else if cause != nil {
		err = cause
	}
	return &Error{Code: CodeUnreachable, Message: "cannot reach the server at " + c.base.String(), Err: err}
}

// safeToRetry reports whether the call may be repeated after err.
func safeToRetry(k *call, err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.RetryAfter > maxRetryAfter {
		return false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true // the server refused before it did anything
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		// A proxy lost the answer. The server may have processed the request.
		return !k.notIdempotent
	case 0:
		// No answer came. If the connection was made, the server may have processed the
		// request.
		return !k.notIdempotent || dialFailed(err)
	}
	return false
}

// dialFailed reports whether the connection failed, so that the server got no request.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// unavailable reports whether the server cannot be reached now, as during a restart.
// [Client.Wait] and [Client.Watch] then try again until ctx ends.
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

// waitToRetry waits before the next try. The wait doubles with each try up to maxPause and
// is at least what the server asked for. It returns the cause when ctx ends, and err at
// once when the deadline of ctx comes before the end of the wait.
func (c *Client) waitToRetry(ctx context.Context, try int, err error) error {
	d := min(minPause<<min(try-1, 10), maxPause)
	d = d/2 + rand.N(d/2+1) // jitter: clients that failed together must not return together
	var e *Error
	if errors.As(err, &e) {
		d = max(d, min(e.RetryAfter, maxRetryAfter))
	}
	// The wait would end in a timeout. The real error tells the caller more, and sooner.
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return err
	}
	if c.onRetry != nil {
		c.onRetry(Retry{Try: try, Delay: d, Err: err})
	}
	return sleep(ctx, d)
}

// sleep waits for d. It returns an error when ctx ends first.
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
