package simmodel

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// request has the parts of a chat-completions request that the model uses.
type request struct {
	Model               string    `json:"model"`
	Messages            []message `json:"messages"`
	Stream              bool      `json:"stream"`
	MaxTokens           *int      `json:"max_tokens"`
	MaxCompletionTokens *int      `json:"max_completion_tokens"`
	User                string    `json:"user"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Sim overrides `json:"-"`

	hash             uint64 // hash of the body
	hasStreamOptions bool
}

func parseRequest(body io.Reader) (request, error) {
	var req request
	data, err := io.ReadAll(body)
	if err != nil {
		return req, fmt.Errorf("the body could not be read, or has more than %d bytes", maxBody)
	}
	if err := json.Unmarshal(data, &req); err != nil {
		return req, fmt.Errorf("the body is not a chat-completions request: %w", err)
	}
	if len(req.Messages) == 0 {
		return req, errors.New("messages must hold at least one message")
	}
	var extra struct {
		Sim json.RawMessage `json:"sim"`
	}
	_ = json.Unmarshal(data, &extra)
	if extra.Sim != nil {
		strict := json.NewDecoder(bytes.NewReader(extra.Sim))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&req.Sim); err != nil {
			return req, fmt.Errorf("the field sim is wrong: %w", err)
		}
	}
	req.hasStreamOptions = req.StreamOptions != nil
	h := fnv.New64a()
	_, _ = h.Write(data)
	req.hash = h.Sum64()
	return req, nil
}

// maxTokens returns how many tokens the request allows; 0 for no limit.
func (r request) maxTokens() int {
	for _, limit := range []*int{r.MaxCompletionTokens, r.MaxTokens} {
		if limit != nil && *limit > 0 {
			return *limit
		}
	}
	return 0
}

// call is a request and its answer in progress.
type call struct {
	ctx          context.Context
	w            http.ResponseWriter
	request      request
	options      Options
	id           string
	startedAt    time.Time
	tokens       []string
	finishReason string // "stop" or "length"
	// What a fault needs.
	authorization string
	began         bool         // something of the answer was written
	packed        *gzip.Writer // nil unless the stream is packed

	// The event of a token, before and after the token; nil until the first one.
	eventHead, eventTail []byte
	event                []byte // the event of the current token
}

func newCall(w http.ResponseWriter, r *http.Request, req request, o Options) *call {
	c := &call{ctx: r.Context(), w: w, request: req, options: o, startedAt: time.Now(), finishReason: "stop", authorization: r.Header.Get("Authorization")}
	c.id = fmt.Sprintf("chatcmpl-sim-%016x", req.hash)
	c.tokens = splitTokens(answer(req.Messages), o.Tokens)
	if limit := req.maxTokens(); limit > 0 && limit < len(c.tokens) {
		c.tokens, c.finishReason = c.tokens[:limit], "length"
	}
	return c
}

func (c *call) answer() {
	if c.failInstead() {
		return
	}
	if c.request.Stream && c.options.Fault != IgnoreStream {
		c.writeStream()
		return
	}
	c.writeWhole()
}

// writeStream writes one event per token.
func (c *call) writeStream() {
	// Comments keep the connection alive from the beginning.
	if c.options.KeepAlive > 0 {
		c.begin()
	}
	if !c.sleepUntil(c.tokenDue(0)) {
		return
	}
	c.begin()
	c.writeChunk(map[string]any{"role": "assistant", "content": ""}, nil)
	if !c.writeExtras() || c.writeInstead() {
		return
	}
	for i, token := range c.tokens {
		if i == c.options.FaultAfter && c.failMidStream() {
			return
		}
		if !c.sleepUntil(c.tokenDue(i)) {
			return
		}
		if c.options.Timestamps {
			token = strconv.FormatInt(time.Now().UnixMicro(), 10) + " "
		}
		if !c.writeToken(token) {
			return
		}
	}
	// If the answer is shorter than FaultAfter, the fault happens at its end.
	if c.options.FaultAfter >= len(c.tokens) && c.failMidStream() {
		return
	}
	c.writeEnd()
}

// begin sends the headers of a stream.
func (c *call) begin() {
	if c.began {
		return
	}
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("Cache-Control", "no-cache")
	switch c.options.Fault {
	case StreamAsJSON:
		c.w.Header().Set("Content-Type", "application/json")
	case PackedStream:
		c.packed = gzip.NewWriter(c.w)
	}
	_ = http.NewResponseController(c.w).Flush()
}

// writeEnd sends the finish reason, the usage and [DONE].
func (c *call) writeEnd() {
	c.writeChunk(map[string]any{}, c.finishReason)
	if o := c.request.StreamOptions; o != nil && o.IncludeUsage && c.options.Fault != HugeUsage && c.options.Fault != OtherFields {
		c.writeEvent(c.makeObject("chat.completion.chunk", []any{}, c.countUsage()))
	}
	c.write([]byte("data: [DONE]\n\n"))
	if c.packed != nil {
		_ = c.packed.Close()
	}
}

// writeWhole writes an unstreamed answer at the time when its last token is due.
func (c *call) writeWhole() {
	if !c.sleepUntil(c.tokenDue(max(0, len(c.tokens)-1))) {
		return
	}
	if c.options.Fault == FinishError {
		c.finishReason = "error"
	}
	message := map[string]any{"role": "assistant", "content": strings.Join(c.tokens, ""), "refusal": nil}
	choice := map[string]any{"index": 0, "message": message, "logprobs": nil, "finish_reason": c.finishReason}
	body, _ := json.Marshal(c.makeObject("chat.completion", []any{choice}, c.countUsage()))
	c.w.Header().Set("Content-Type", "application/json")
	half := len(body) / 2
	if c.write(body[:half]) && (c.options.Fault == FinishError || !c.failMidStream()) {
		c.write(body[half:])
	}
}

// tokenDue returns when token i must be sent.
func (c *call) tokenDue(i int) time.Time {
	at := c.startedAt.Add(c.options.FirstToken)
	if c.options.TokensPerSecond > 0 {
		at = at.Add(time.Duration(float64(i) / c.options.TokensPerSecond * float64(time.Second)))
	}
	return at
}

// sleepUntil returns false if the client has gone. It sends comments meanwhile, if the stream has
// begun and the options ask for them.
func (c *call) sleepUntil(at time.Time) bool {
	for {
		d := time.Until(at)
		if d <= 0 {
			return c.ctx.Err() == nil
		}
		comments := c.options.KeepAlive > 0 && c.request.Stream && c.options.KeepAlive < d
		if comments {
			d = c.options.KeepAlive
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return false
		}
		if comments && !c.write([]byte(": keep-alive\n\n")) {
			return false
		}
	}
}

func (c *call) writeChunk(delta map[string]any, finish any) bool {
	choice := map[string]any{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}
	return c.writeEvent(c.makeObject("chat.completion.chunk", []any{choice}, nil))
}

// writeToken sends one token. It encodes the JSON around the tokens only once, so that
// benchmarks with thousands of streams do not measure this server.
func (c *call) writeToken(token string) bool {
	if c.eventHead == nil {
		choice := map[string]any{"index": 0, "delta": map[string]any{"content": ""}, "logprobs": nil, "finish_reason": nil}
		data, _ := json.Marshal(c.makeObject("chat.completion.chunk", []any{choice}, nil))
		before, after, _ := bytes.Cut(data, []byte(`"content":""`))
		c.eventHead = append(append([]byte("data: "), before...), `"content":`...)
		c.eventTail = append(after, "\n\n"...)
	}
	text, _ := json.Marshal(token)
	if wrote, isOdd := c.writeOddToken(text); isOdd {
		return wrote
	}
	c.event = append(append(append(c.event[:0], c.eventHead...), text...), c.eventTail...)
	return c.write(c.event)
}

func (c *call) makeObject(kind string, choices []any, usage any) map[string]any {
	o := map[string]any{"id": c.id, "object": kind, "created": c.startedAt.Unix(), "model": c.request.Model, "choices": choices}
	if usage != nil {
		o["usage"] = usage
	}
	return o
}

func (c *call) countUsage() map[string]int {
	prompt := 0
	for _, m := range c.request.Messages {
		prompt += m.wordCount()
	}
	completion := len(c.tokens)
	return map[string]int{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
}

func (c *call) writeEvent(value any) bool {
	data, _ := json.Marshal(value)
	return c.write(append(append([]byte("data: "), data...), "\n\n"...))
}

// write sends data at once. It returns false if the client has gone.
func (c *call) write(data []byte) bool {
	if c.options.Fault != "" {
		data = c.reframe(data)
	}
	c.began = true
	if c.packed != nil {
		_, _ = c.packed.Write(data)
		_ = c.packed.Flush()
	} else if _, err := c.w.Write(data); err != nil {
		return false
	}
	return http.NewResponseController(c.w).Flush() == nil && c.ctx.Err() == nil
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
