package llm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxRefusal = 64 << 10               // bytes that are read of an answer which is an error
	drainFor   = 100 * time.Millisecond // how long the end of a stream is waited for, after its last event
)

// errNoAnswer ends a call whose server took too long.
var errNoAnswer = errors.New("llm: the model server did not answer in time")

// call is one attempt: a request and its answer. It is used by one goroutine.
type call struct {
	// set once
	model    *model
	pass     *pass
	out      exec.Sink
	patience time.Duration // for the server to begin its answer; 0 without end
	trace    string        // the traceparent that is sent along; "" for none
	cancel   context.CancelCauseFunc
	clock    *time.Timer // ends the call when the patience is over; nil without end

	answer  completion
	size    int     // bytes said, of text and events
	pieces  int     // chunks that said something
	percent float64 // reported last
	status  int     // of the answer; 0 while there is none
	usage   []byte  // what the server said last of it
}

func (c *call) do(ctx context.Context, body []byte) error {
	if err := c.report(10, "Analyzing query"); err != nil {
		return err
	}
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	if c.patience > 0 {
		c.clock = time.AfterFunc(c.patience, func() { c.cancel(errNoAnswer) })
		defer c.clock.Stop()
	}
	resp, err := c.model.client.Do(c.request(ctx, body))
	if err != nil {
		return c.broken(ctx, err)
	}
	defer resp.Body.Close()
	c.status = resp.StatusCode
	return c.relay(ctx, resp)
}

func (c *call) relay(ctx context.Context, resp *http.Response) error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.refused(ctx, resp)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case kind == "text/event-stream":
		if c.clock != nil {
			c.clock.Stop() // it has begun its answer
		}
		return c.stream(ctx, resp.Body)
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		return c.whole(ctx, resp.Body)
	}
	return c.model.wrongType(kind)
}

func (c *call) request(ctx context.Context, body []byte) *http.Request {
	req := (&http.Request{
		Method:        http.MethodPost,
		URL:           c.model.url,
		Host:          c.model.url.Host,
		Header:        make(http.Header),
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream, application/json")
	req.Header.Set("User-Agent", "meanwhile")
	if c.model.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.model.APIKey)
	}
	if c.trace != "" {
		req.Header.Set("Traceparent", c.trace)
	}
	return req
}

// stream relays an answer that comes in pieces.
func (c *call) stream(ctx context.Context, body io.Reader) error {
	for in := newEvents(body); ; {
		data, err := in.next()
		if err != nil {
			return c.ended(ctx, err)
		}
		if string(data) == "[DONE]" {
			c.drain(body)
			return c.done()
		}
		if err := c.take(data); err != nil {
			return err
		}
	}
}

// drain reads to the end of a stream that has said its last, so that the
// connection can be used again; not for long.
func (c *call) drain(body io.Reader) {
	enough := time.AfterFunc(drainFor, func() { c.cancel(nil) })
	defer enough.Stop()
	_, _ = io.CopyN(io.Discard, body, 4<<10)
}

// take relays one event.
func (c *call) take(data []byte) error {
	if text, ok := c.answer.plain(data); ok {
		if err := c.sayText(text); err != nil {
			return err
		}
		c.answer.addText(text)
		return nil
	}
	var k chunk
	if err := json.Unmarshal(data, &k); err != nil {
		return c.model.fault(codeBadStream, job.Retryable, "sent an event that is no chat-completions chunk", err)
	}
	if !isEmpty(k.Error) {
		return c.model.inStream(k.Error)
	}
	c.pass.answers()
	if err := c.say(data, k); err != nil {
		return err
	}
	c.answer.add(k)
	return nil
}

// say relays what a chunk says: its oddities, then its text.
func (c *call) say(data []byte, k chunk) error {
	if !isEmpty(k.Usage) {
		c.usage = k.Usage
		c.out.Usage(k.Usage)
	}
	text, odd := k.text(), k.odd()
	if text == "" && !odd {
		return nil
	}
	c.size += len(text)
	if odd {
		c.size += len(data)
	}
	if c.size > job.MaxOutput {
		return c.tooLarge()
	}
	if err := c.reportPiece(); err != nil {
		return err
	}
	if odd {
		if err := c.out.Event(data); err != nil {
			return err
		}
	}
	if text == "" {
		return nil
	}
	return c.out.Text(text)
}

// sayText relays what a plain chunk says.
func (c *call) sayText(text string) error {
	c.size += len(text)
	if c.size > job.MaxOutput {
		return c.tooLarge()
	}
	if err := c.reportPiece(); err != nil {
		return err
	}
	return c.out.Text(text)
}

// ended judges the end of a stream without its last event. Many servers leave that
// out; a stream is over as well when every choice has said why it ends.
func (c *call) ended(ctx context.Context, err error) error {
	var f *job.Fault
	switch {
	case ctx.Err() != nil || errors.As(err, &f):
		return c.broken(ctx, err)
	case c.answer.finished():
		return c.done()
	case errors.Is(err, io.EOF):
		return c.model.fault("upstream_incomplete", job.Retryable, "ended its answer in the middle", nil)
	}
	return c.broken(ctx, err)
}

// done sets the result of an answer that came in pieces.
func (c *call) done() error {
	if len(c.answer.choices) == 0 {
		return c.model.fault(codeBadStream, job.Retryable, "ended its answer without having said anything", nil)
	}
	first(&c.answer.head.Model, c.model.Upstream)
	return c.finish(c.answer.encode())
}

// whole relays an answer that comes in one piece, from a server that does not stream.
func (c *call) whole(ctx context.Context, body io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(body, job.MaxOutput+1))
	if err != nil {
		return c.broken(ctx, err)
	}
	if len(data) > job.MaxOutput {
		return c.tooLarge()
	}
	var k chunk
	if err := json.Unmarshal(data, &k); err != nil {
		return c.model.fault(codeBadAnswer, job.Retryable, "answered with what is no chat completion", err)
	}
	if !isEmpty(k.Error) {
		return c.model.inStream(k.Error)
	}
	if len(k.Choices) == 0 {
		return c.model.fault(codeBadAnswer, job.Retryable, "answered without a choice", nil)
	}
	data = bytes.TrimSpace(data)
	if err := c.say(data, k); err != nil {
		return err
	}
	return c.finish(data)
}

func (c *call) finish(completion []byte) error {
	if err := c.report(100, "Complete"); err != nil {
		return err
	}
	c.out.Result(job.Result{ContentType: "application/json", Body: completion})
	return nil
}

// reportPiece moves the progress with the tokens: quickly at first, and never to
// the end, because nobody knows how many there will be.
func (c *call) reportPiece() error {
	n := float64(c.pieces)
	c.pieces++
	return c.report(float64(int(30+49*n/(n+200))), "Generating response")
}

func (c *call) report(percent float64, status string) error {
	if percent <= c.percent {
		return nil
	}
	c.percent = percent
	return c.out.Progress(job.Progress{Percent: percent, Status: status})
}
