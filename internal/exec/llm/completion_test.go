package llm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// delta returns a chunk of the first choice.
func delta(fields string) string {
	return `{"id":"c1","created":5,"model":"mm","choices":[{"index":0,"delta":{` + fields + `}}]}`
}

func finishChunk(reason string) string {
	return `{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}`
}

// completionOf returns a completion with one choice.
func completionOf(message, reason, rest string) string {
	return `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":` + message +
		`,"logprobs":null,"finish_reason":"` + reason + `"}]` + rest + `}`
}

// A stream becomes text, events, usage and the completion that the same server would have sent
// unstreamed.
func TestCompletionIsRebuiltFromItsStream(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream []string
		text   string
		events []string
		usage  string
		result string
	}{
		"plain text": {
			stream: []string{delta(`"role":"assistant","content":""`), delta(`"content":"a <"`), delta(`"content":"b\u0000"`), finishChunk("stop"),
				`{"choices":[],"usage":{"total_tokens":3}}`, "[DONE]"},
			text:   "a <b\x00",
			usage:  `{"total_tokens":3}`,
			result: completionOf(`{"role":"assistant","content":"a <b\u0000"}`, "stop", `,"usage":{"total_tokens":3}`),
		},
		"no [DONE]": {
			stream: []string{delta(`"content":"x"`), finishChunk("length")},
			text:   "x",
			result: completionOf(`{"role":"assistant","content":"x"}`, "length", ""),
		},
		"things that are no chunks are skipped": {
			stream: []string{`{"type":"ping"}`, delta(`"content":"x"`), `null`, finishChunk("stop"), "[DONE]"},
			text:   "x",
			result: completionOf(`{"role":"assistant","content":"x"}`, "stop", ""),
		},
		"tool calls": {
			stream: []string{
				delta(`"role":"assistant","content":null`),
				delta(`"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"find","arguments":""}}]`),
				delta(`"tool_calls":[{"index":0,"function":{"arguments":"{\"q\":"}}]`),
				delta(`"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"stop","arguments":"{}"}}]`),
				delta(`"tool_calls":[{"index":0,"type":"function","function":{"name":"find","arguments":"1}"}}]`),
				finishChunk("tool_calls"), "[DONE]"},
			events: []string{
				`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"","name":"find"},"id":"t1","index":0,"type":"function"}]},"index":0}]}`,
				`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"q\":"},"index":0}]},"index":0}]}`,
				`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}","name":"stop"},"id":"t2","index":1,"type":"function"}]},"index":0}]}`,
				`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"1}","name":""},"index":0}]},"index":0}]}`,
			},
			result: completionOf(`{"role":"assistant","content":null,"tool_calls":[
				{"id":"t1","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}},
				{"id":"t2","type":"function","function":{"name":"stop","arguments":"{}"}}]}`, "tool_calls", ""),
		},
		"reasoning, then text": {
			stream: []string{
				delta(`"reasoning_content":"hm","content":""`), delta(`"reasoning_content":"m.","content":null`),
				delta(`"reasoning_details":[{"index":0,"type":"t","text":"a"}]`), delta(`"reasoning_details":[{"index":0,"type":"t","text":"b"}]`),
				delta(`"reasoning_content":"","content":"Yes"`), finishChunk("stop")},
			text:   "Yes",
			events: []string{`{"choices":[{"delta":{"reasoning_content":"hmm."},"index":0}]}`, `{"choices":[{"delta":{"reasoning_details":[{"index":0,"text":"a","type":"t"}]},"index":0}]}`, `{"choices":[{"delta":{"reasoning_details":[{"index":0,"text":"b","type":"t"}]},"index":0}]}`},
			result: completionOf(`{"role":"assistant","content":"Yes","reasoning_content":"hmm.",
				"reasoning_details":[{"index":0,"type":"t","text":"ab"}]}`, "stop", ""),
		},
		"a refusal": {
			stream: []string{delta(`"refusal":"No, "`), delta(`"refusal":"thanks."`), finishChunk("stop")},
			events: []string{`{"choices":[{"delta":{"refusal":"No, thanks."},"index":0}]}`},
			result: completionOf(`{"role":"assistant","content":null,"refusal":"No, thanks."}`, "stop", ""),
		},
		"a piece that is text and more": {
			stream: []string{delta(`"content":"x","annotations":[{"a":1},{"a":2}]`), finishChunk("stop")},
			text:   "x",
			events: []string{`{"choices":[{"delta":{"annotations":[{"a":1},{"a":2}]},"index":0}]}`},
			result: completionOf(`{"role":"assistant","content":"x","annotations":[{"a":1},{"a":2}]}`, "stop", ""),
		},
		"content in parts": {
			stream: []string{delta(`"content":[{"type":"thinking","text":"a"}]`), delta(`"content":[{"type":"text","text":"b"}]`), finishChunk("stop")},
			text:   "b",
			events: []string{`{"choices":[{"delta":{"content":[{"text":"a","type":"thinking"}]},"index":0}]}`},
			result: completionOf(`{"role":"assistant","content":[{"type":"thinking","text":"a"},{"type":"text","text":"b"}]}`, "stop", ""),
		},
		"log probabilities": {
			stream: []string{
				`{"id":"c1","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[{"token":"x","logprob":-0.10}]}}]}`,
				`{"choices":[{"index":0,"delta":{"content":"y"},"logprobs":{"content":[{"token":"y","logprob":-2e0}]}}]}`, finishChunk("stop")},
			text:   "xy",
			events: []string{`{"choices":[{"index":0,"logprobs":{"content":[{"token":"x","logprob":-0.10}]}}]}`, `{"choices":[{"index":0,"logprobs":{"content":[{"token":"y","logprob":-2e0}]}}]}`},
			result: `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"xy"},
				"logprobs":{"content":[{"token":"x","logprob":-0.10},{"token":"y","logprob":-2e0}]},"finish_reason":"stop"}]}`,
		},
		"two choices": {
			stream: []string{
				`{"id":"c1","created":5,"model":"mm","choices":[{"index":1,"delta":{"role":"assistant","content":""}},{"index":0,"delta":{"content":"a"}}]}`,
				`{"choices":[{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
				`{"choices":[{"index":1,"delta":{"content":"c"},"finish_reason":"length"}]}`},
			text:   "a",
			events: []string{`{"choices":[{"delta":{"content":"bc"},"index":1}]}`},
			result: `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[
				{"index":0,"message":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":"stop"},
				{"index":1,"message":{"role":"assistant","content":"bc"},"logprobs":null,"finish_reason":"length"}]}`,
		},
		"a first chunk without a head, and extras": {
			stream: []string{`{"id":"","model":"","choices":[],"prompt_filter_results":[]}`, delta(`"content":"x"`),
				`{"id":"c2","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null,"system_fingerprint":"fp","service_tier":"flex"}`},
			text:   "x",
			events: []string{`{"choices":[],"service_tier":"flex"}`},
			result: completionOf(`{"role":"assistant","content":"x"}`, "stop", `,"system_fingerprint":"fp","service_tier":"flex"`),
		},
	} {
		r := run(t, newInMemory(t, streamHandler(c.stream...)), hello)
		if r.Text() != c.text {
			t.Errorf("%s: the text is %q, want %q", name, r.Text(), c.text)
		}
		if got := r.OfKind(job.KindJSON); !reflect.DeepEqual(got, c.events) {
			t.Errorf("%s: the events are %q, want %q", name, got, c.events)
		}
		if c.usage != "" && (len(r.Usage) != 1 || r.Usage[0] != c.usage) {
			t.Errorf("%s: the usage is %v", name, r.Usage)
		}
		sameJSON(t, name, string(r.Results[0].Body), c.result)
	}
}

func TestEventPrecedesTextOfTheSameChunk(t *testing.T) {
	t.Parallel()
	chunk := delta(`"content":"x","annotations":[{"a":1}]`)
	r := run(t, newInMemory(t, streamHandler(chunk, finishChunk("stop"))), hello)
	var entries []exectest.Entry
	for _, s := range r.Entries {
		if s.Kind != job.KindProgress {
			entries = append(entries, s)
		}
	}
	if want := []exectest.Entry{{Kind: job.KindJSON, Data: `{"choices":[{"delta":{"annotations":[{"a":1}]},"index":0}]}`}, {Kind: job.KindText, Data: "x"}}; !reflect.DeepEqual(entries, want) {
		t.Errorf("the output is %v", entries)
	}
}

// A server that ignores "stream" answers with JSON, which becomes the result unchanged.
func TestUnstreamedAnswerBecomesTheResult(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body, text, event string
	}{
		"text":        {`{"id":"c1","extra":1.0,"choices":[{"index":0,"message":{"role":"assistant","content":"all of it","refusal":null},"finish_reason":"stop"}],"usage":{"total_tokens":9}}`, "all of it", `{"choices":[],"extra":1.0}`},
		"a tool call": {`{"id":"c1","choices":[{"message":{"content":null,"tool_calls":[{"id":"t"}]}}],"usage":{"total_tokens":9}}`, "", `{"choices":[{"delta":{"tool_calls":[{"id":"t","index":0}]},"index":0}]}`},
	} {
		r := run(t, newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			fmt.Fprintf(w, "\n%s\n", c.body)
		})), hello)
		if r.Text() != c.text || string(r.Results[0].Body) != c.body || r.Usage[0] != `{"total_tokens":9}` {
			t.Errorf("%s: the text is %q, the usage %v, the result %s", name, r.Text(), r.Usage, r.Results[0].Body)
		}
		if events := r.OfKind(job.KindJSON); strings.Join(events, "|") != c.event {
			t.Errorf("%s: the events are %v", name, events)
		}
	}
}

func TestUnstreamedAnswerMustBeACompletion(t *testing.T) {
	t.Parallel()
	for body, w := range map[string]wantFault{
		`{`:                             {"upstream_bad_answer", job.Retryable, "not a chat completion"},
		`{}`:                            {"upstream_bad_answer", job.Retryable, "without a choice"},
		`{"choices":[]}`:                {"upstream_bad_answer", job.Retryable, "without a choice"},
		`{"error":{"code":429},"x":[]}`: {"upstream_rate_limited", job.Wait, "asks to wait"},
	} {
		f, _ := runFailing(t, newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
		})), hello)
		w.check(t, body, f)
	}
}

func TestSimulatedModelStreamsSameAnswer(t *testing.T) {
	t.Parallel()
	e := newInMemory(t, simmodel.New(simmodel.Options{}))
	streamed := run(t, e, `{"messages":[{"role":"user","content":"x"}]}`)
	whole := run(t, e, `{"messages":[{"role":"user","content":"x"}],"sim":{"fault":"ignore-stream"}}`)
	if streamed.Text() != whole.Text() || streamed.Usage[0] != whole.Usage[0] {
		t.Errorf("streamed: %q %v\nwhole: %q %v", streamed.Text(), streamed.Usage, whole.Text(), whole.Usage)
	}
}

func sameJSON(t *testing.T, name, got, want string) {
	t.Helper()
	var g, w any
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("%s: the result is\n%s\nwant\n%s", name, got, want)
	}
}
