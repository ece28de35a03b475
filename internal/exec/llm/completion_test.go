package llm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// delta is a chunk of the first choice.
func delta(fields string) string {
	return `{"id":"c1","created":5,"model":"mm","choices":[{"index":0,"delta":{` + fields + `}}]}`
}

func finish(reason string) string {
	return `{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}`
}

// choice0 is a completion that holds one choice.
func choice0(message, reason, rest string) string {
	return `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":` + message +
		`,"logprobs":null,"finish_reason":"` + reason + `"}]` + rest + `}`
}

// A stream becomes text, events, usage and the completion that the same server
// would have given in one piece.
func TestACompletionIsRebuiltFromItsStream(t *testing.T) {
	for name, c := range map[string]struct {
		stream []string
		text   string
		events []int // which of the stream's events are said as events
		usage  string
		result string
	}{
		"plain text": {
			stream: []string{delta(`"role":"assistant","content":""`), delta(`"content":"a <"`), delta(`"content":"b\u0000"`), finish("stop"),
				`{"choices":[],"usage":{"total_tokens":3}}`, "[DONE]"},
			text:   "a <b\x00",
			usage:  `{"total_tokens":3}`,
			result: choice0(`{"role":"assistant","content":"a <b\u0000"}`, "stop", `,"usage":{"total_tokens":3}`),
		},
		"no [DONE]": {
			stream: []string{delta(`"content":"x"`), finish("length")},
			text:   "x",
			result: choice0(`{"role":"assistant","content":"x"}`, "length", ""),
		},
		"things that are no chunks are skipped": {
			stream: []string{`{"type":"ping"}`, delta(`"content":"x"`), `null`, finish("stop"), "[DONE]"},
			text:   "x",
			result: choice0(`{"role":"assistant","content":"x"}`, "stop", ""),
		},
		"tool calls": {
			stream: []string{
				delta(`"role":"assistant","content":null`),
				delta(`"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"find","arguments":""}}]`),
				delta(`"tool_calls":[{"index":0,"function":{"arguments":"{\"q\":"}}]`),
				delta(`"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"stop","arguments":"{}"}}]`),
				delta(`"tool_calls":[{"index":0,"type":"function","function":{"name":"find","arguments":"1}"}}]`),
				finish("tool_calls"), "[DONE]"},
			events: []int{1, 2, 3, 4},
			result: choice0(`{"role":"assistant","content":null,"tool_calls":[
				{"id":"t1","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}},
				{"id":"t2","type":"function","function":{"name":"stop","arguments":"{}"}}]}`, "tool_calls", ""),
		},
		"reasoning, then text": {
			stream: []string{
				delta(`"reasoning_content":"hm","content":""`), delta(`"reasoning_content":"m.","content":null`),
				delta(`"reasoning_details":[{"index":0,"type":"t","text":"a"}]`), delta(`"reasoning_details":[{"index":0,"type":"t","text":"b"}]`),
				delta(`"reasoning_content":"","content":"Yes"`), finish("stop")},
			text:   "Yes",
			events: []int{0, 1, 2, 3},
			result: choice0(`{"role":"assistant","content":"Yes","reasoning_content":"hmm.",
				"reasoning_details":[{"index":0,"type":"t","text":"ab"}]}`, "stop", ""),
		},
		"a refusal": {
			stream: []string{delta(`"refusal":"No, "`), delta(`"refusal":"thanks."`), finish("stop")},
			events: []int{0, 1},
			result: choice0(`{"role":"assistant","content":null,"refusal":"No, thanks."}`, "stop", ""),
		},
		"a piece that is text and more": {
			stream: []string{delta(`"content":"x","annotations":[{"a":1},{"a":2}]`), finish("stop")},
			text:   "x",
			events: []int{0},
			result: choice0(`{"role":"assistant","content":"x","annotations":[{"a":1},{"a":2}]}`, "stop", ""),
		},
		"content in parts": {
			stream: []string{delta(`"content":[{"type":"thinking","text":"a"}]`), delta(`"content":[{"type":"text","text":"b"}]`), finish("stop")},
			events: []int{0, 1},
			result: choice0(`{"role":"assistant","content":[{"type":"thinking","text":"a"},{"type":"text","text":"b"}]}`, "stop", ""),
		},
		"log probabilities": {
			stream: []string{
				`{"id":"c1","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[{"token":"x","logprob":-0.10}]}}]}`,
				`{"choices":[{"index":0,"delta":{"content":"y"},"logprobs":{"content":[{"token":"y","logprob":-2e0}]}}]}`, finish("stop")},
			text:   "xy",
			events: []int{0, 1},
			result: `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"xy"},
				"logprobs":{"content":[{"token":"x","logprob":-0.10},{"token":"y","logprob":-2e0}]},"finish_reason":"stop"}]}`,
		},
		"two choices": {
			stream: []string{
				`{"id":"c1","created":5,"model":"mm","choices":[{"index":1,"delta":{"role":"assistant","content":""}},{"index":0,"delta":{"content":"a"}}]}`,
				`{"choices":[{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
				`{"choices":[{"index":1,"delta":{"content":"c"},"finish_reason":"length"}]}`},
			text:   "a",
			events: []int{1, 3},
			result: `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[
				{"index":0,"message":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":"stop"},
				{"index":1,"message":{"role":"assistant","content":"bc"},"logprobs":null,"finish_reason":"length"}]}`,
		},
		"a first chunk without a head, and extras": {
			stream: []string{`{"id":"","model":"","choices":[],"prompt_filter_results":[]}`, delta(`"content":"x"`),
				`{"id":"c2","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null,"system_fingerprint":"fp","service_tier":"flex"}`},
			text:   "x",
			result: choice0(`{"role":"assistant","content":"x"}`, "stop", `,"system_fingerprint":"fp","service_tier":"flex"`),
		},
	} {
		r := run(t, inMemory(t, saying(c.stream...)), hello)
		if r.Text() != c.text {
			t.Errorf("%s: it said %q, want %q", name, r.Text(), c.text)
		}
		var events []string
		for _, i := range c.events {
			events = append(events, c.stream[i])
		}
		if got := r.OfKind(job.KindJSON); !reflect.DeepEqual(got, events) {
			t.Errorf("%s: its events are %q, want %q", name, got, events)
		}
		if c.usage != "" && (len(r.Usage) != 1 || r.Usage[0] != c.usage) {
			t.Errorf("%s: its usage is %v", name, r.Usage)
		}
		same(t, name, string(r.Results[0].Body), c.result)
	}
}

func TestAnEventComesBeforeTheTextOfItsChunk(t *testing.T) {
	odd := delta(`"content":"x","annotations":[{"a":1}]`)
	r := run(t, inMemory(t, saying(odd, finish("stop"))), hello)
	var said []exectest.Entry
	for _, s := range r.Entries {
		if s.Kind != job.KindProgress {
			said = append(said, s)
		}
	}
	if want := []exectest.Entry{{Kind: job.KindJSON, Data: odd}, {Kind: job.KindText, Data: "x"}}; !reflect.DeepEqual(said, want) {
		t.Errorf("it said %v", said)
	}
}

// A server that does not stream answers with JSON; it becomes the result as it is.
func TestAnAnswerInOnePiece(t *testing.T) {
	for name, c := range map[string]struct {
		body, text string
		event      bool
	}{
		"text":        {`{"id":"c1","extra":1.0,"choices":[{"index":0,"message":{"role":"assistant","content":"all of it","refusal":null},"finish_reason":"stop"}],"usage":{"total_tokens":9}}`, "all of it", false},
		"a tool call": {`{"id":"c1","choices":[{"message":{"content":null,"tool_calls":[{"id":"t"}]}}],"usage":{"total_tokens":9}}`, "", true},
	} {
		r := run(t, inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			fmt.Fprintf(w, "\n%s\n", c.body)
		})), hello)
		if r.Text() != c.text || string(r.Results[0].Body) != c.body || r.Usage[0] != `{"total_tokens":9}` {
			t.Errorf("%s: it said %q, with the usage %v, and came to %s", name, r.Text(), r.Usage, r.Results[0].Body)
		}
		if events := r.OfKind(job.KindJSON); c.event != (len(events) == 1 && events[0] == c.body) {
			t.Errorf("%s: its events are %v", name, events)
		}
	}
}

func TestAWholeAnswerThatIsNone(t *testing.T) {
	for body, w := range map[string]want{
		`{`:                             {"upstream_bad_answer", job.Retryable, "no chat completion"},
		`{}`:                            {"upstream_bad_answer", job.Retryable, "without a choice"},
		`{"choices":[]}`:                {"upstream_bad_answer", job.Retryable, "without a choice"},
		`{"error":{"code":429},"x":[]}`: {"upstream_rate_limited", job.Wait, "asks to wait"},
	} {
		f, _ := failing(t, inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
		})), hello)
		w.hold(t, body, f)
	}
}

func TestTheSimulatedModelIsTheSameStreamedAndWhole(t *testing.T) {
	e := inMemory(t, simmodel.New(simmodel.Options{}))
	streamed := run(t, e, `{"messages":[{"role":"user","content":"x"}]}`)
	whole := run(t, e, `{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"ignore-stream"}}`)
	if streamed.Text() != whole.Text() || streamed.Usage[0] != whole.Usage[0] {
		t.Errorf("streamed: %q %v\nwhole: %q %v", streamed.Text(), streamed.Usage, whole.Text(), whole.Usage)
	}
}

func same(t *testing.T, name, got, want string) {
	t.Helper()
	var g, w any
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("%s: it came to\n%s\nwant\n%s", name, got, want)
	}
}
