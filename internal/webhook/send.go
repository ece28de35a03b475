package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What is read of an answer, so that its connection can be used again. Its status has said
// everything already.
const (
	maxBody      = 16 << 10 // bytes
	drainTimeout = 250 * time.Millisecond
)

// errTimeout ends a request whose receiver did not answer in time.
var errTimeout = errors.New("webhook: the receiver did not answer in time")

// send makes one request. It returns once the receiver's status is known and a little of its body
// was read.
func (e *Executor) send(ctx context.Context, t Target, id, trace string, body []byte) (o Outcome) {
	o.At = time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(e.config.Timeout, func() { cancel(errTimeout) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err == nil {
		setHeaders(req.Header, t.Secrets, id, trace, o.At, body)
		var res *http.Response
		// Not by a client, which would follow redirects.
		if res, err = e.transport.RoundTrip(req); err == nil {
			o.readStatus(res)
			timer.Reset(drainTimeout)
			discard(res)
			return o
		}
	}
	o.Took = time.Since(o.At)
	o.setError(ctx, err, e.config.Timeout)
	return o
}

func setHeaders(h http.Header, secrets []Secret, id, trace string, at time.Time, body []byte) {
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "Meanwhile-Callbacks/1")
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(HeaderSignature, Sign(secrets, id, at, body))
	if trace != "" {
		h.Set("Traceparent", trace)
	}
	// A header without values is not sent, and lets the transport repeat a request whose
	// connection the receiver had closed before: deliveries may arrive twice.
	h["Idempotency-Key"] = nil
}

// readStatus takes what counts of an answer.
func (o *Outcome) readStatus(res *http.Response) {
	o.Took, o.Status = time.Since(o.At), res.StatusCode
	o.OK = 200 <= o.Status && o.Status < 300
	o.Gone = o.Status == http.StatusGone
	if !o.OK {
		o.setRefusal(retryAfter(res.Header, o.At))
	}
}

// discard reads the rest of a short answer, and closes a longer one.
func discard(res *http.Response) {
	// After a switch of protocols the body is the connection, and no timeout ends a read of it.
	if res.ContentLength <= maxBody && res.StatusCode != http.StatusSwitchingProtocols {
		_, _ = io.CopyN(io.Discard, res.Body, maxBody+1)
	}
	_ = res.Body.Close()
}

// maxRetryAfter is the longest wait that a receiver may ask for: the longest of the schedule.
const maxRetryAfter = 24 * time.Hour

// retryAfter returns the wait of a Retry-After header (RFC 9110, section 10.2.3), in seconds or as
// a date; 0 without one that can be read.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
