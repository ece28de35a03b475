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
	maxErrorBody = 64 << 10               // bytes to read of an error answer
	drainTimeout = 100 * time.Millisecond // how long to read a stream after its last event
)

// errRequestTimeout ends a call whose server did not answer in time.
var errRequestTimeout = errors.New("llm: the model server did not answer in time")

// call is one request and its answer. One goroutine uses it.
type call struct {
	// set once
	model   *model
	permit  *permit
	out     exec.Sink
	timeout time.Duration // how long the server may take to begin its answer; 0 for no limit
	trace   string        // the traceparent to send; "" for none
	cancel  context.CancelCauseFunc
	timer   *time.Timer // ends the call after timeout; nil without a limit

	completion completion // the streamed answer so far
	size       int        // bytes of text and events written so far
	chunks     int        // number of chunks written so far
	percent    float64    // the last percentage reported
	status     int        // HTTP status of the answer; 0 before it
	usage      []byte     // the last usage that the server sent
}

// do sends the request and writes the answer to the sink.
func (c *call) do(ctx context.Context, body []byte) error {
	if err := c.reportProgress(10, "Analyzing query"); err != nil {
		return err
	}
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	if c.timeout > 0 {
		c.timer = time.AfterFunc(c.timeout, func() { c.cancel(errRequestTimeout) })
		defer c.timer.Stop()
	}
	resp, err := c.model.client.Do(c.newRequest(ctx, body))
	if err != nil {
		return c.transferFault(ctx, err)
	}
	defer resp.Body.Close()
	c.status = resp.StatusCode
	return c.readResponse(ctx, resp)
}

// readResponse reads an answer whose headers have arrived: an error, a stream, or a whole
// completion.
func (c *call) readResponse(ctx context.Context, resp *http.Response) error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.statusFault(ctx, resp)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case kind == "text/event-stream":
		if c.timer != nil {
			c.timer.Stop() // the answer has begun, so from here on the runner limits its pauses
		}
		return c.readStream(ctx, resp.Body)
	// A server that ignores "stream" sends a whole completion. The timer runs until all of it is
	// read.
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		return c.readWhole(ctx, resp.Body)
	}
	return c.model.wrongTypeFault(kind, nil)
}

func (c *call) newRequest(ctx context.Context, body []byte) *http.Request {
	// Not http.NewRequest, because the URL is already parsed.
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

func (c *call) readStream(ctx context.Context, body io.Reader) error {
	for in := newEventReader(body); ; {
		data, err := in.next()
		if err != nil {
			return c.endStream(ctx, err)
		}
		if string(data) == "[DONE]" {
			c.drain(body)
			return c.finishStream()
		}
		if err := c.handleEvent(data); err != nil {
			return err
		}
	}
}

// drain reads the rest of a stream after its last event, for a short time, so that the
// connection can be reused.
func (c *call) drain(body io.Reader) {
	timer := time.AfterFunc(drainTimeout, func() { c.cancel(nil) })
	defer timer.Stop()
	_, _ = io.CopyN(io.Discard, body, 4<<10)
}

func (c *call) handleEvent(data []byte) error {
	// The fast path, for nearly every event.
	if text, ok := c.completion.parsePlain(data); ok {
		if err := c.writeText(text); err != nil {
			return err
		}
		c.completion.addText(text)
		return nil
	}
	var k chunk
	if err := json.Unmarshal(data, &k); err != nil {
		return c.model.fault(codeBadStream, job.Retryable, "sent an event that is not a chat-completions chunk", err)
	}
	if !isEmpty(k.Error) {
		return c.model.faultForError(readReason(data, time.Now()))
	}
	// After the check for an error: a server that answers 200 and then reports an error does not
	// work.
	c.permit.markAnswering()
	if err := c.writeChunk(data, k); err != nil {
		return err
	}
	c.completion.add(k)
	return nil
}

// writeChunk writes a chunk to the sink: as an event if it contains more than text, and then its
// text.
func (c *call) writeChunk(data []byte, k chunk) error {
	if !isEmpty(k.Usage) {
		c.usage = k.Usage
		c.out.Usage(k.Usage)
	}
	text, event := k.text(), k.needsEvent()
	if text == "" && !event {
		return nil
	}
	c.size += len(text)
	if event {
		c.size += len(data)
	}
	if c.size > job.MaxOutput {
		return c.tooLargeFault()
	}
	if err := c.reportChunk(); err != nil {
		return err
	}
	if event {
		if err := c.out.Event(data); err != nil {
			return err
		}
	}
	if text == "" {
		return nil
	}
	return c.out.Text(text)
}

// writeText writes the text of a plain chunk to the sink.
func (c *call) writeText(text string) error {
	c.size += len(text)
	if c.size > job.MaxOutput {
		return c.tooLargeFault()
	}
	if err := c.reportChunk(); err != nil {
		return err
	}
	return c.out.Text(text)
}

// endStream handles a stream that ended with err and without [DONE]. The answer is complete if
// every choice has a finish reason, because many servers omit [DONE].
func (c *call) endStream(ctx context.Context, err error) error {
	var f *job.Fault
	switch {
	case ctx.Err() != nil || errors.As(err, &f):
		return c.transferFault(ctx, err)
	// Before io.EOF and network errors, because all relevant data has arrived.
	case c.completion.allFinished():
		return c.finishStream()
	case errors.Is(err, io.EOF):
		return c.model.fault("upstream_incomplete", job.Retryable, "ended its answer in the middle", nil)
	}
	return c.transferFault(ctx, err)
}

// finishStream sets the result of a complete streamed answer.
func (c *call) finishStream() error {
	if len(c.completion.choices) == 0 {
		return c.model.fault(codeBadStream, job.Retryable, "ended its answer without any content", nil)
	}
	// Some servers omit the model.
	setFirst(&c.completion.head.Model, c.model.Upstream)
	return c.setResult(c.completion.encode())
}

// readWhole reads a whole completion from a server that ignores "stream".
func (c *call) readWhole(ctx context.Context, body io.Reader) error {
	// One byte above the limit shows that the answer is too large.
	data, err := io.ReadAll(io.LimitReader(body, job.MaxOutput+1))
	if err != nil {
		return c.transferFault(ctx, err)
	}
	if len(data) > job.MaxOutput {
		return c.tooLargeFault()
	}
	var k chunk
	if err := json.Unmarshal(data, &k); err != nil {
		return c.model.fault(codeBadAnswer, job.Retryable, "answered with something that is not a chat completion", err)
	}
	if !isEmpty(k.Error) {
		return c.model.faultForError(readReason(data, time.Now()))
	}
	if len(k.Choices) == 0 {
		return c.model.fault(codeBadAnswer, job.Retryable, "answered without a choice", nil)
	}
	// The answer becomes the result unchanged, except for white space around it.
	data = bytes.TrimSpace(data)
	if err := c.writeChunk(data, k); err != nil {
		return err
	}
	return c.setResult(data)
}

func (c *call) setResult(completion []byte) error {
	if err := c.reportProgress(100, "Complete"); err != nil {
		return err
	}
	c.out.Result(job.Result{ContentType: "application/json", Body: completion})
	return nil
}

// reportChunk increases the progress with each chunk: quickly at first, and never to 100
// percent, because the number of tokens is unknown.
func (c *call) reportChunk() error {
	n := float64(c.chunks)
	c.chunks++
	return c.reportProgress(float64(int(30+49*n/(n+200))), "Generating response")
}

func (c *call) reportProgress(percent float64, status string) error {
	if percent <= c.percent {
		return nil
	}
	c.percent = percent
	return c.out.Progress(job.Progress{Percent: percent, Status: status})
}
