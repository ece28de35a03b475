package simmodel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"time"
)

// request is what of a chat-completions body the model looks at.
type request struct {
	Model               string    `json:"model"`
	Messages            []message `json:"messages"`
	Stream              bool      `json:"stream"`
	MaxTokens           *int      `json:"max_tokens"`
	MaxCompletionTokens *int      `json:"max_completion_tokens"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Sim overrides `json:"-"`

	hash uint64 // of the body
}

func read(body io.Reader) (request, error) {
	var req request
	data, err := io.ReadAll(body)
	if err != nil {
		return req, fmt.Errorf("the body could not be read, or has more than %d bytes", maxBody)
	}
	if err := json.Unmarshal(data, &req); err != nil {
		return req, fmt.Errorf("the body is no chat-completions request: %w", err)
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
	h := fnv.New64a()
	_, _ = h.Write(data)
	req.hash = h.Sum64()
	return req, nil
}

// limit is how many tokens the request allows; 0 for any number.
func (r request) limit() int {
	for _, most := range []*int{r.MaxCompletionTokens, r.MaxTokens} {
		if most != nil && *most > 0 {
			return *most
		}
	}
	return 0
}

// call is one request being answered.
type call struct {
	ctx     context.Context
	w       http.ResponseWriter
	request request
	options Options
	id      string
	begun   time.Time
	tokens  []string
	finish  string // why the answer ends: "stop" or "length"

	head, tail []byte // of the event of a token, around the token; made with the first
	piece      []byte // the event of a token that is sent
}

func start(w http.ResponseWriter, r *http.Request, req request, o Options) *call {
	c := &call{ctx: r.Context(), w: w, request: req, options: o, begun: time.Now(), finish: "stop"}
	c.id = fmt.Sprintf("chatcmpl-sim-%016x", req.hash)
	c.tokens = tokens(answer(req.Messages), o.Tokens)
	if most := req.limit(); most > 0 && most < len(c.tokens) {
		c.tokens, c.finish = c.tokens[:most], "length"
	}
	return c
}

func (c *call) answer() {
	if c.before() {
		return
	}
	if c.request.Stream && c.options.Fault != IgnoreStream {
		c.stream()
		return
	}
	c.whole()
}

// stream says a token an event.
func (c *call) stream() {
	if !c.sleepUntil(c.due(0)) {
		return
	}
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("Cache-Control", "no-cache")
	c.chunk(map[string]any{"role": "assistant", "content": ""}, nil)
	for i, token := range c.tokens {
		if i == c.options.FaultAfter && c.midway() {
			return
		}
		if !c.sleepUntil(c.due(i)) {
			return
		}
		if c.options.Timestamps {
			token = strconv.FormatInt(time.Now().UnixMicro(), 10) + " "
		}
		if !c.say(token) {
			return
		}
	}
	if c.options.FaultAfter >= len(c.tokens) && c.midway() {
		return
	}
	c.chunk(map[string]any{}, c.finish)
	if c.request.StreamOptions.IncludeUsage {
		c.event(c.object("chat.completion.chunk", []any{}, c.usage()))
	}
	c.write([]byte("data: [DONE]\n\n"))
}

// whole says the answer in one piece, when all its tokens are due.
func (c *call) whole() {
	if !c.sleepUntil(c.due(max(0, len(c.tokens)-1))) {
		return
	}
	message := map[string]any{"role": "assistant", "content": joined(c.tokens), "refusal": nil}
	choice := map[string]any{"index": 0, "message": message, "logprobs": nil, "finish_reason": c.finish}
	body, _ := json.Marshal(c.object("chat.completion", []any{choice}, c.usage()))
	c.w.Header().Set("Content-Type", "application/json")
	half := len(body) / 2
	if c.write(body[:half]) && !c.midway() {
		c.write(body[half:])
	}
}

// due is when the token of that index is to be said.
func (c *call) due(i int) time.Time {
	at := c.begun.Add(c.options.FirstToken)
	if c.options.TokensPerSecond > 0 {
		at = at.Add(time.Duration(float64(i) / c.options.TokensPerSecond * float64(time.Second)))
	}
	return at
}

// sleepUntil says false when the caller has gone.
func (c *call) sleepUntil(at time.Time) bool {
	d := time.Until(at)
	if d <= 0 {
		return c.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

func (c *call) chunk(delta map[string]any, finish any) bool {
	choice := map[string]any{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}
	return c.event(c.object("chat.completion.chunk", []any{choice}, nil))
}

// say sends one token. A chunk but for its token is written once: a model that
// thousands of streams are measured with is not to be what is measured.
func (c *call) say(token string) bool {
	if c.head == nil {
		choice := map[string]any{"index": 0, "delta": map[string]any{"content": ""}, "logprobs": nil, "finish_reason": nil}
		data, _ := json.Marshal(c.object("chat.completion.chunk", []any{choice}, nil))
		before, after, _ := bytes.Cut(data, []byte(`"content":""`))
		c.head = append(append([]byte("data: "), before...), `"content":`...)
		c.tail = append(after, "\n\n"...)
	}
	text, _ := json.Marshal(token)
	c.piece = append(append(append(c.piece[:0], c.head...), text...), c.tail...)
	return c.write(c.piece)
}

func (c *call) object(kind string, choices []any, usage any) map[string]any {
	o := map[string]any{"id": c.id, "object": kind, "created": c.begun.Unix(), "model": c.request.Model, "choices": choices}
	if usage != nil {
		o["usage"] = usage
	}
	return o
}

func (c *call) usage() map[string]int {
	asked := 0
	for _, m := range c.request.Messages {
		asked += m.words()
	}
	said := len(c.tokens)
	return map[string]int{"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
}

func (c *call) event(value any) bool {
	data, _ := json.Marshal(value)
	return c.write(append(append([]byte("data: "), data...), "\n\n"...))
}

// write sends a piece at once, and says false when the caller has gone.
func (c *call) write(piece []byte) bool {
	if _, err := c.w.Write(piece); err != nil {
		return false
	}
	return http.NewResponseController(c.w).Flush() == nil && c.ctx.Err() == nil
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
