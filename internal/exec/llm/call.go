package llm

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxErrorBody = 64 << 10               // bytes to read of an error answer
	errorTimeout = 5 * time.Second        // how long to read an error answer
	drainTimeout = 100 * time.Millisecond // how long to read a stream after its last event
)

// errSlowBody ends a call whose server has answered with an error and does not end its body.
var errSlowBody = errors.New("llm: the body of an error takes too long")

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

	completion completion // the answer so far
	whole      []byte     // the answer, if it was not streamed
	events     int        // number of events so far
	size       int        // bytes of text and events written so far
	held       piece      // what is not written yet of a string

	loggedLogprobs int     // bytes of log probabilities written so far
	chunks         int     // number of chunks written so far
	percent        float64 // the last percentage reported
	status         int     // HTTP status of the answer; 0 before it
	usage          []byte  // the last usage that the server sent
	refused        reason  // what the server said about its error
}

// do sends the request and writes the answer to the sink. If the server refuses the form of the
// request, it is asked again in a simpler one.
func (c *call) do(ctx context.Context, req request) error {
	form := c.model.form()
	err := c.ask(ctx, req, form)
	if err == nil {
		c.model.accepted(form)
	}
	for first := form; err != nil; {
		simpler, ok := c.model.simpler(form, c.refused)
		if !ok || c.size > 0 || ctx.Err() != nil || !isFormRefusal(err) {
			return err
		}
		form, c.refused, c.completion, c.events = simpler, reason{}, completion{}, 0
		if err = c.ask(ctx, req, form); err == nil || !isFormRefusal(err) {
			c.model.remember(first, form)
		}
	}
	return nil
}

// ask sends the request once, in the given form.
func (c *call) ask(ctx context.Context, req request, f form) error {
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	if c.timeout > 0 {
		c.timer = time.AfterFunc(c.timeout, func() { c.cancel(errRequestTimeout) })
		defer c.timer.Stop()
	}
	resp, err := c.send(ctx, req.body(f))
	if err != nil {
		return c.transferFault(ctx, err)
	}
	defer resp.Body.Close()
	c.status = resp.StatusCode
	c.permit.headers = resp.Header
	err = c.readResponse(ctx, resp)
	// Also what came before a failure is in the log.
	if flushErr := c.flushPiece(); err == nil {
		err = flushErr
	}
	return err
}

const (
	maxResends  = 2                      // of one request
	minIdle     = 100 * time.Millisecond // no server closes an idle connection sooner
	staleWithin = 2 * time.Second        // how soon a connection ends that was closed before it was used
)

// send sends the request. A server may close an idle connection just when a request is sent on
// it. Such a request was not seen by the server, so it is sent again and costs no attempt.
func (c *call) send(ctx context.Context, body []byte) (*http.Response, error) {
	for resends := 0; ; resends++ {
		var wasIdle atomic.Bool
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { wasIdle.Store(i.WasIdle && i.IdleTime >= minIdle) }})
		began := time.Now()
		resp, err := c.model.client.Do(c.newRequest(traced, body))
		if err == nil || !wasIdle.Load() || !isHangUp(err) || ctx.Err() != nil || resends == maxResends || time.Since(began) > staleWithin {
			return resp, err
		}
	}
}

// isHangUp reports whether a connection ended before the first byte of an answer.
func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "server closed idle connection") // net/http does not export this one
}

// readResponse reads an answer whose headers have arrived: an error, or an answer in any form.
func (c *call) readResponse(ctx context.Context, resp *http.Response) error {
	c.out.Alive()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.statusFault(ctx, resp)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var body io.Reader = liveBody{resp.Body, c.out}
	switch coding := contentCoding(resp); coding {
	case "", "gzip": // gzip is recognized by its first bytes, too
	case "deflate":
		unpacked, err := zlib.NewReader(body)
		if err != nil {
			return c.transferFault(ctx, err)
		}
		body = unpacked
	default:
		return c.model.fault(codeBadAnswer, job.Final, "answered with "+c.model.clean(coding)+", a compression that was not asked for", nil)
	}
	if kind == "text/event-stream" {
		c.stopTimer()
	}
	return c.readStream(ctx, body, resp.Header.Get("Content-Type"))
}

// stopTimer ends the time for the beginning of the answer. From here on the runner limits its
// pauses.
func (c *call) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// liveBody is a body whose bytes are signs of life, whatever they say.
type liveBody struct {
	io.Reader
	out exec.Sink
}

func (b liveBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 {
		b.out.Alive()
	}
	return n, err
}

func (c *call) newRequest(ctx context.Context, body []byte) *http.Request {
	// Not http.NewRequest, because the URL is already parsed.
	req := (&http.Request{
		Method:        http.MethodPost,
		URL:           c.model.url,
		Host:          c.model.url.Host,
		Header:        c.model.headers.Clone(),
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	if c.trace != "" {
		req.Header.Set("Traceparent", c.trace)
	}
	return req
}

// readStream reads an answer event by event. The first bytes decide what it is, and not its
// content type. A server that ignores "stream" sends a whole completion, which is one event.
func (c *call) readStream(ctx context.Context, body io.Reader, kind string) error {
	for in := newEventReader(body, c.stopTimer); ; {
		// What is held must not wait for the server.
		if len(c.held.text) > 0 && in.waits() {
			if err := c.flushPiece(); err != nil {
				return err
			}
		}
		data, err := in.next()
		switch {
		case errors.Is(err, errNotStream):
			return c.model.wrongTypeFault(kind, in.head)
		case errors.Is(err, errEventTooLarge):
			return c.tooLargeFault()
		case errors.Is(err, io.EOF) && c.whole != nil && c.events == 1:
			return c.finishWhole()
		case errors.Is(err, io.EOF) && in.isRaw && len(c.completion.choices) == 0:
			return c.unreadable(codeBadAnswer, in.data, in.whyNoAnswer())
		case errors.Is(err, io.EOF) && !in.stream && c.events == 0:
			return c.model.wrongTypeFault(kind, in.head)
		case err != nil:
			return c.endStream(ctx, err)
		}
		c.events++
		if isDone(data) {
			c.drain(body)
			return c.finishStream(true)
		}
		if in.isError {
			return c.faultForError(readReason(data, time.Now()))
		}
		if err := c.handleEvent(data, in.isRaw); err != nil {
			return err
		}
		// Without a reason it may be the first of many.
		if finished, all := c.completion.finished(); c.whole != nil && finished == all {
			c.drain(body)
			return c.finishWhole()
		}
	}
}

func isDone(data []byte) bool {
	return len(data) <= 16 && strings.EqualFold(strings.Trim(string(data), ` "`), "[DONE]")
}

// isPing recognizes the data of events that only show that the server is alive.
func isPing(data []byte) bool {
	if len(data) > 16 {
		return false
	}
	switch strings.ToLower(strings.Trim(string(data), " \t\"")) {
	case "", "null", "{}", "[]", "ping", "pong", "heartbeat", "keepalive", "keep-alive", "keep_alive":
		return true
	}
	return false
}

// drain reads the rest of a stream after its last event, for a short time, so that the
// connection can be reused.
func (c *call) drain(body io.Reader) {
	timer := time.AfterFunc(drainTimeout, func() { c.cancel(nil) })
	defer timer.Stop()
	_, _ = io.CopyN(io.Discard, body, 4<<10)
}

// handleEvent handles the data of an event: nearly always one chunk. isRaw is whether it came
// without the form of a stream.
func (c *call) handleEvent(data []byte, isRaw bool) error {
	// The fast path, for nearly every event.
	if name, old, text, ok := c.completion.parsePlain(data); ok {
		c.completion.addPlain(old, text)
		if string(name) == "content" {
			return c.write(added{text: text})
		}
		return c.hold(0, name, text)
	}
	// Some servers pack several chunks into one event, one after another or as a list.
	data = bytes.TrimSpace(data)
	for len(data) > 0 && data[0] == '{' {
		end := valueEnd(data)
		if end == 0 || end == len(data) {
			break
		}
		if err := c.handleChunk(data[:end], false); err != nil {
			return err
		}
		data, isRaw = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(data[end:]), []byte("data:"))), false
		if isDone(data) {
			return nil // the end of the stream follows
		}
	}
	if len(data) > 2 && data[0] == '[' && json.Valid(data) && checkShape(data, 1) == nil {
		for item := range elements(data) {
			if err := c.handleChunk(item, false); err != nil {
				return err
			}
		}
		return nil
	}
	return c.handleChunk(data, isRaw)
}

func (c *call) handleChunk(data []byte, isRaw bool) error {
	if isPing(data) {
		return nil
	}
	k, err := decodeChunk(data)
	switch {
	case errors.Is(err, errShape):
		return c.strangeFault()
	case err != nil && isRaw:
		return c.unreadable(codeBadAnswer, data, err)
	case err != nil:
		return c.unreadable(codeBadStream, data, err)
	}
	if failure := k.failure(); failure != nil {
		return c.faultForError(readReason(failure, time.Now()))
	}
	// After the check for an error: a server that answers 200 and then reports an error does not
	// work.
	c.permit.markAnswering()
	if isRaw && !k.isWhole() {
		c.stopTimer() // a stream of one chunk per line
	}
	if usage := boundUsage(k.usageAnywhere()); usage != nil {
		c.usage = usage
		c.out.Usage(usage)
	}
	isFirst := len(c.completion.choices) == 0
	a, err := c.completion.add(k, c.loggedLogprobs < maxLoggedLogprobs)
	if err != nil {
		return c.strangeFault()
	}
	if err := c.write(a); err != nil {
		return err
	}
	// Also what is not written takes memory.
	if err := c.limit(); err != nil {
		return err
	}
	before := c.loggedLogprobs
	if c.loggedLogprobs += a.logprobs; before < maxLoggedLogprobs && c.loggedLogprobs >= maxLoggedLogprobs {
		if err := c.out.Log("The log probabilities are too large for the log. All of them are in the result."); err != nil {
			return err
		}
	}
	c.whole = nil // what follows another chunk is a stream
	if isRaw && k.isWhole() && isFirst {
		c.whole = bytes.Clone(k.data)
	}
	return c.checkFinish(k)
}

// checkFinish returns a fault if a choice ended because of one.
func (c *call) checkFinish(k chunk) error {
	for _, choice := range k.choices {
		if isBadFinish(choice.finish) {
			return c.faultForError(reason{words: []string{normalWord(choice.finish)}, message: "finish_reason: " + choice.finish})
		}
	}
	return nil
}

// unreadable logs what cannot be read and returns its fault, which quotes it.
func (c *call) unreadable(code string, data []byte, why error) error {
	quote := c.model.clean(string(data))
	if err := c.flushPiece(); err != nil {
		return err
	}
	if err := c.out.Log("The model server sent: " + quote); err != nil {
		return err
	}
	did := "sent an event that is not a chat-completions chunk"
	if code == codeBadAnswer {
		did = "answered with something that is not a chat completion"
	}
	return c.model.fault(code, job.Retryable, fmt.Sprintf("%s (%v): %s", did, why, quote), nil)
}

// strangeFault is final, because the server would do it again.
func (c *call) strangeFault() error {
	return c.model.fault(codeBadStream, job.Final,
		fmt.Sprintf("sent JSON of more than %d levels, or of too many members", maxDepth), nil)
}

// endStream handles a stream that ended with err and without [DONE]. The answer is complete if
// every choice has a finish reason, because many servers omit [DONE].
func (c *call) endStream(ctx context.Context, err error) error {
	finished, all := c.completion.finished()
	var f *job.Fault
	switch {
	case ctx.Err() != nil || errors.As(err, &f):
		return c.transferFault(ctx, err)
	// Before io.EOF and network errors, because all relevant data has arrived.
	case all > 0 && finished == all:
		return c.finishStream(false)
	case errors.Is(err, io.EOF):
		return c.incompleteFault()
	}
	return c.transferFault(ctx, err)
}

func (c *call) incompleteFault() error {
	return c.model.fault("upstream_incomplete", job.Retryable, "ended its answer in the middle", nil)
}

// finishStream sets the result of a streamed answer that has ended, if it is complete. done is
// whether the server said [DONE].
func (c *call) finishStream(done bool) error {
	finished, all := c.completion.finished()
	switch {
	case all == 0:
		return c.model.fault(codeBadStream, job.Retryable, "ended its answer without any content", nil)
	case finished == all:
		c.model.givesReasons.Store(true)
	// Some servers never give a reason. From others, [DONE] without one means that somebody in
	// the middle has ended a stream that broke off.
	case !done || finished > 0 || c.model.givesReasons.Load() || c.completion.hasOpenCall():
		return c.incompleteFault()
	}
	if err := c.writeRest(); err != nil {
		return err
	}
	// Some servers omit the model.
	setFirst(&c.completion.model, c.model.Upstream)
	return c.setResult(c.completion.encode())
}

// finishWhole sets the result of a whole answer. It becomes the result unchanged.
func (c *call) finishWhole() error {
	if err := c.writeRest(); err != nil {
		return err
	}
	return c.setResult(c.whole)
}

func (c *call) setResult(completion []byte) error {
	if err := c.reportProgress(100, "Complete"); err != nil {
		return err
	}
	c.out.Result(job.Result{ContentType: "application/json", Body: completion})
	return nil
}
