package llm

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// answerOf runs a job on an answer of this type and body, which must succeed.
func answerOf(t *testing.T, kind, body string) (exectest.Record, string) {
	t.Helper()
	r := run(t, newInMemory(t, answering(200, http.Header{"Content-Type": {kind}}, body)), hello)
	return r, string(r.Results[0].Body)
}

// finishOf returns the end of a stream.
func finishOf(reason string) string { return "data: " + finishChunk(reason) + "\n\ndata: [DONE]\n\n" }

// A stream is read whatever its framing.
func TestFramingVaries(t *testing.T) {
	t.Parallel()
	a, b, end := delta(`"role":"assistant","content":"a"`), delta(`"content":"b"`), finishChunk("stop")
	stream := "data: " + a + "\n\ndata: " + b + "\n\ndata: " + end + "\n\n"
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte(stream))
	_ = w.Close()
	for name, c := range map[string]struct{ kind, body string }{
		"as the standard says":  {"text/event-stream", stream + "data: [DONE]\n\n"},
		"a byte order mark":     {"text/event-stream", "\ufeff" + stream},
		"empty data":            {"text/event-stream", "data:\n\ndata: \n\n" + stream + "data:\n\n"},
		"blanks":                {"text/event-stream", "\n\n \n" + strings.ReplaceAll(stream, "\n\n", "\n\n\n\n") + "data:  [DONE] \n\n"},
		"no last blank line":    {"text/event-stream", strings.TrimSuffix(stream, "\n\n")},
		"single newlines":       {"text/event-stream", strings.ReplaceAll(stream, "\n\n", "\n") + "data: [DONE]"},
		"pings":                 {"text/event-stream", "data: ping\n\nevent: ping\ndata: {}\n\n: x\n\n" + stream},
		"a wrong content type":  {"application/json", stream},
		"plain text":            {"text/plain", ": hello\n\n" + stream},
		"no content type":       {"", stream},
		"a chunk per line":      {"application/x-ndjson", a + "\n" + b + "\n" + end + "\n"},
		"a list of chunks":      {"application/json", "[" + a + ",\n" + b + "," + end + "]"},
		"two chunks in a line":  {"text/event-stream", "data: " + a + " " + b + "\n\ndata: " + end + "\n\n"},
		"data within a line":    {"text/event-stream", "data: " + a + "data: " + b + "data: " + end + "\n\n"},
		"gzip, undeclared":      {"text/event-stream", packed.String()},
		"a pretty chunk":        {"text/event-stream", strings.Replace(stream, `"choices"`, "\ndata: \"choices\"", 1)},
		"carriage returns only": {"text/event-stream", strings.ReplaceAll(stream, "\n", "\r")},
	} {
		r, result := answerOf(t, c.kind, c.body)
		if r.Text() != "ab" {
			t.Errorf("%s: the text is %q", name, r.Text())
		}
		sameJSON(t, name, result, completionOf(`{"role":"assistant","content":"ab"}`, "stop", ""))
	}
}

// An unstreamed answer is one, whatever its content type.
func TestUnstreamedAnswerOfAnyType(t *testing.T) {
	t.Parallel()
	body := `{"id":7,"choices":[{"message":{"content":"all"},"finish_reason":"stop"}]}`
	for _, kind := range []string{"text/event-stream", "text/plain", "", "text/html"} {
		if r, result := answerOf(t, kind, "\ufeff \n"+body); r.Text() != "all" || result != body {
			t.Errorf("%q: the text is %q, the result %s", kind, r.Text(), result)
		}
	}
}

// What nobody needs may have any type.
func TestTypesVary(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ first, want string }{
		"created a string":     {`"created":"1760000000","id":"i"`, `"created":1760000000,"id":"i"`},
		"id a number":          {`"id":123,"created":1.5e3`, `"created":1500,"id":"123"`},
		"everything an object": {`"id":{},"created":[],"model":7,"object":null,"system_fingerprint":3`, `"created":0,"id":"c1","model":"m","system_fingerprint":3`},
		"NaN":                  {`"score":NaN,"worst":-Infinity,"id":"NaN"`, `"created":0,"id":"NaN"`},
	} {
		r, result := answerOf(t, "text/event-stream", "data: {"+c.first+`,"choices":[{"delta":{"content":"a"}}]}`+"\n\n"+
			`data: {"choices":[{"index":"0","delta":{"content":"b`+"\x01"+`"},"logprobs":NaN}]}`+"\n\n"+finishOf("stop"))
		if r.Text() != "ab\x01" {
			t.Errorf("%s: the text is %q", name, r.Text())
		}
		var got, want map[string]any
		_ = json.Unmarshal([]byte(result), &got)
		_ = json.Unmarshal([]byte("{"+c.want+"}"), &want)
		for member, value := range want {
			if fmt.Sprint(got[member]) != fmt.Sprint(value) {
				t.Errorf("%s: %s is %v, want %v", name, member, got[member], value)
			}
		}
	}
}

// The text of a content in parts is text, and a list and a string may follow each other.
func TestContentInParts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deltas       []string
		text, result string
	}{
		"parts of text":              {[]string{`"content":[{"type":"text","text":"a"}]`, `"content":[{"type":"text","text":"b"}]`}, "ab", `"ab"`},
		"thinking, and then strings": {[]string{`"content":[{"type":"thinking","thinking":[{"type":"text","text":"h"}]}]`, `"content":[{"type":"thinking","thinking":[{"type":"text","text":"m"}]}]`, `"content":"yes"`, `"content":"!"`}, "yes!", `[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"yes!"}]`},
		"a string, and then parts":   {[]string{`"content":"a"`, `"content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"u"}}]`}, "ab", `[{"type":"text","text":"ab"},{"type":"image_url","image_url":{"url":"u"}}]`},
	} {
		var body string
		for _, d := range c.deltas {
			body += "data: " + delta(d) + "\n\n"
		}
		r, result := answerOf(t, "text/event-stream", body+finishOf("stop"))
		if r.Text() != c.text {
			t.Errorf("%s: the text is %q", name, r.Text())
		}
		sameJSON(t, name, result, completionOf(`{"role":"assistant","content":`+c.result+`}`, "stop", ""))
	}
}

// A new id begins a tool call, a known id or index continues it.
func TestToolCallsAreAssembled(t *testing.T) {
	t.Parallel()
	call := func(fields string) string { return `"tool_calls":[` + fields + `]` }
	two := `[{"id":"a","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}},{"id":"b","type":"function","function":{"name":"stop","arguments":"{}"}}]`
	for name, c := range map[string]struct {
		deltas []string
		want   string
	}{
		"all at index 0": {[]string{
			call(`{"index":0,"id":"a","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}}`),
			call(`{"index":0,"id":"b","type":"function","function":{"name":"stop","arguments":"{}"}}`)}, two},
		"all at index 0, in pieces": {[]string{
			call(`{"index":0,"id":"a","type":"function","function":{"name":"find","arguments":""}}`), call(`{"index":0,"function":{"arguments":"{\"q\":"}}`), call(`{"index":0,"function":{"arguments":"1}"}}`),
			call(`{"index":0,"id":"b","type":"function","function":{"name":"stop","arguments":""}}`), call(`{"index":0,"function":{"arguments":"{}"}}`)}, two},
		"no index, the id only first": {[]string{
			call(`{"id":"a","type":"function","function":{"name":"find","arguments":""}}`), call(`{"function":{"arguments":"{\"q\":"}}`), call(`{"id":"","function":{"arguments":"1}"}}`),
			call(`{"id":"b","type":"function","function":{"name":"stop"}}`), call(`{"id":null,"function":{"arguments":"{}"}}`)}, two},
		"interleaved by id": {[]string{
			call(`{"id":"a","type":"function","function":{"name":"find","arguments":"{\"q"}}`), call(`{"id":"b","type":"function","function":{"name":"stop","arguments":"{"}}`),
			call(`{"id":"a","function":{"arguments":"\":1}"}}`), call(`{"id":"b","function":{"arguments":"}"}}`)}, two},
		"interleaved by index": {[]string{
			call(`{"index":0,"id":"a","type":"function","function":{"name":"find"}},{"index":1,"id":"b","type":"function","function":{"name":"stop"}}`),
			call(`{"index":1,"function":{"arguments":"{"}}`), call(`{"index":0,"function":{"arguments":"{\"q\":1"}}`), call(`{"index":1,"function":{"arguments":"}"}},{"index":0,"function":{"arguments":"}"}}`)}, two},
		"indexes from 1, and as strings": {[]string{
			call(`{"index":"1","id":"a","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}}`),
			call(`{"index":2,"id":"b","type":"function","function":{"name":"stop","arguments":"{"}}`), call(`{"index":2,"function":{"arguments":"}"}}`)}, two},
		"name and arguments cut anywhere": {[]string{
			call(`{"index":0,"id":"a","type":"function","function":{"name":"fi"}}`), call(`{"index":0,"function":{"name":"nd","arguments":"{"}}`), call(`{"index":0,"function":{"arguments":"\"q\":1}"}}`),
			call(`{"index":1,"id":"b","type":"function","function":{"name":"st"}}`), call(`{"index":1,"function":{"name":"op","arguments":"{}"}}`)}, two},
		"id, type and name in each piece": {[]string{
			call(`{"index":0,"id":"a","type":"function","function":{"name":"find","arguments":"{\"q\""}}`), call(`{"index":0,"id":"a","type":"function","function":{"name":"find","arguments":":1}"}}`),
			call(`{"index":1,"id":"b","type":"function","function":{"name":"stop","arguments":"{"}}`), call(`{"index":1,"id":"b","type":"function","function":{"name":"stop","arguments":"}"}}`)}, two},
		"the id comes late": {[]string{
			call(`{"index":0,"type":"function","function":{"name":"find"}}`), call(`{"index":0,"id":"a","function":{"arguments":"{\"q\":1}"}}`),
			call(`{"index":1,"type":"function","function":{"name":"stop","arguments":"{}"}}`), call(`{"index":1,"id":"b"}`)}, two},
		"no id and no index": {[]string{
			call(`{"type":"function","function":{"name":"find","arguments":"{\"q\":1}"}},{"type":"function","function":{"name":"find","arguments":"{}"}}`), call(`{"function":{"name":"stop","arguments":"{}"}}`)},
			`[{"type":"function","function":{"name":"find","arguments":"{\"q\":1}"}},{"type":"function","function":{"name":"find","arguments":"{}"}},{"function":{"name":"stop","arguments":"{}"}}]`},
		"characters cut in arguments": {[]string{
			call(`{"index":0,"id":"a","type":"function","function":{"name":"find","arguments":"\ud83d"}}`), call(`{"index":0,"function":{"arguments":"\ude00"}}`)},
			`[{"id":"a","type":"function","function":{"name":"find","arguments":"😀"}}]`},
	} {
		var body string
		for _, d := range c.deltas {
			body += "data: " + delta(d) + "\n\n"
		}
		_, result := answerOf(t, "text/event-stream", body+finishOf("tool_calls"))
		sameJSON(t, name, result, completionOf(`{"role":"assistant","content":null,"tool_calls":`+c.want+`}`, "tool_calls", ""))
	}
}

// Fields beside the usual are in the log and in the result.
func TestOtherFieldsAreKept(t *testing.T) {
	t.Parallel()
	r, result := answerOf(t, "text/event-stream", strings.Join([]string{
		`data: {"id":"c1","created":5,"model":"mm","provider":"p","choices":[{"index":0,"delta":{"role":"assistant","content":"a","reasoning":"r","thinking":"t"}}]}`,
		`data: {"provider":"p","citations":["one"],"choices":[{"index":0,"delta":{"content":"b","audio":{"id":"x","data":"QUJD"}},"native_finish_reason":null}]}`,
		`data: {"provider":"p","citations":["one","two"],"choices":[{"index":0,"delta":{"content":"c","audio":{"data":"REVG","transcript":"t"},"annotations":[{"type":"url_citation","url":"u"}]}}]}`,
		`data: {"service_tier":"flex","x":{"y":[1]},"choices":[{"index":0,"delta":{},"finish_reason":"stop","native_finish_reason":"END","usage":{"total_tokens":3}}]}`,
	}, "\n\n")+"\n\ndata: [DONE]\n\n")
	sameJSON(t, "result", result, `{"id":"c1","object":"chat.completion","created":5,"model":"mm","provider":"p","citations":["one","two"],"service_tier":"flex","x":{"y":[1]},"usage":{"total_tokens":3},
		"choices":[{"index":0,"logprobs":null,"finish_reason":"stop","native_finish_reason":"END","message":{"role":"assistant","content":"abc","reasoning":"r","thinking":"t",
			"audio":{"id":"x","data":"QUJDREVG","transcript":"t"},"annotations":[{"type":"url_citation","url":"u"}]}}]}`)
	if len(r.Usage) == 0 || r.Usage[len(r.Usage)-1] != `{"total_tokens":3}` {
		t.Errorf("the usage is %v", r.Usage)
	}
	log := strings.Join(r.OfKind(job.KindJSON), "\n")
	for _, want := range []string{`"provider":"p"`, `"citations":["one"]`, `"citations":["one","two"]`, `"reasoning":"r"`, `"data":"REVG"`, `"url_citation"`, `"service_tier":"flex"`, `"native_finish_reason":"END"`} {
		if strings.Count(log, want) != 1 {
			t.Errorf("%s is %d times in the log:\n%s", want, strings.Count(log, want), log)
		}
	}
	if strings.Contains(log, `"content"`) {
		t.Errorf("text is in the events too:\n%s", log)
	}
}

// A job succeeds only if the answer is complete.
func TestAnswerMustBeComplete(t *testing.T) {
	t.Parallel()
	text := "data: " + delta(`"content":"half"`) + "\n\n"
	for body, w := range map[string]wantFault{
		text + "data: " + finishChunk("error") + "\n\ndata: [DONE]\n\n": {"upstream_error", job.Retryable, "finish_reason: error"},
		text + finishOf("abort"):                        {"upstream_error", job.Retryable, "abort"},
		text + finishOf("insufficient_system_resource"): {"upstream_unavailable", job.Wait, "insufficient"},
		text + finishOf("network_error"):                {"upstream_error", job.Retryable, ""},
		text + `data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null,"error":{"code":429,"message":"Try again in 8s"}}]}` + "\n\ndata: [DONE]\n\n": {"upstream_rate_limited", job.Wait, "in 8s"},
		text + "event: error\ndata: {\"message\":\"gone\"}\n\n" + finishOf("stop"):                                                                                      {"upstream_error", job.Retryable, "gone"},
		text + "event: error\ndata: overloaded now\n\n" + finishOf("stop"):                                                                                              {"upstream_error", job.Retryable, "overloaded now"},
		text + "event: error\n\n" + finishOf("stop"):                                                                                                                    {"upstream_error", job.Retryable, "in its answer"},
		text + `data: {"object":"error","message":"too long","type":"BadRequestError","code":400}` + "\n\ndata: [DONE]\n\n":                                             {"upstream_rejected", job.Final, "too long"},
		text + `data: {"type":"error","message":"stop"}` + "\n\n" + finishOf("stop"):                                                                                    {"upstream_error", job.Retryable, "stop"},
		text + `{"error":{"message":"without data","type":"overloaded_error"}}`:                                                                                         {"upstream_unavailable", job.Wait, "without data"},
		`data: {"detail":"Not authenticated"}` + "\n\n":                                                                                                                 {"upstream_error", job.Retryable, "Not authenticated"},
		`data: {"base_resp":{"status_code":1004,"status_msg":"login fail"},"choices":null}` + "\n\ndata: [DONE]\n\n":                                                    {"upstream_error", job.Retryable, "login fail"},
		`{"code":1210,"msg":"bad key"}`:                           {"upstream_error", job.Retryable, "bad key"},
		`{"object":"error","code":404,"message":"no such model"}`: {"upstream_not_found", job.Final, "no such model"},
		text: {"upstream_incomplete", job.Retryable, "in the middle"},
		text + "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n":      {"upstream_incomplete", job.Retryable, "in the middle"},
		"data: " + delta(`"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"q\":"}}]`) + "\n\ndata: [DONE]\n\n": {"upstream_incomplete", job.Retryable, "in the middle"},
		`{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}`:                                                         {"upstream_error", job.Retryable, "finish_reason: error"},
		`{"choices":[{"message":{"content":"half"}`:                                                                                    {"upstream_bad_answer", job.Retryable, "not JSON"},
		`Internal error, see log`: {"upstream_bad_answer", job.Retryable, "see log"},
		``:                        {"upstream_bad_answer", job.Retryable, ""},
	} {
		f, _ := runFailing(t, newInMemory(t, answering(200, http.Header{"Content-Type": {"text/event-stream"}}, body)), hello)
		w.check(t, body, f)
	}
}

// [DONE] without a finish reason is the end of an answer only on a server that never gives one.
func TestDoneWithoutFinishReason(t *testing.T) {
	t.Parallel()
	body := "data: " + delta(`"content":"x"`) + "\n\n"
	end := "data: [DONE]\n\n"
	e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, body+end)
	}))
	run(t, e, hello)
	end = finishOf("stop")
	run(t, e, hello)
	end = "data: [DONE]\n\n"
	f, _ := runFailing(t, e, hello)
	wantFault{"upstream_incomplete", job.Retryable, "in the middle"}.check(t, "[DONE]", f)
}

// What cannot be read is quoted in the error and in the log.
func TestUnreadableEventIsQuoted(t *testing.T) {
	t.Parallel()
	f, r := runFailing(t, newInMemory(t, streamHandler(delta(`"content":"x"`), `{"choices": [{"delta" oops`)), hello)
	wantFault{"upstream_bad_stream", job.Retryable, `{"choices": [{"delta" oops`}.check(t, "bad JSON", f)
	if log := r.OfKind(job.KindLog); len(log) != 1 || !strings.Contains(log[0], "oops") {
		t.Errorf("the log is %q", log)
	}
}

// Characters are held until they are whole: in the text, in other choices, in reasoning.
func TestCharactersAreHeldUntilWhole(t *testing.T) {
	t.Parallel()
	r, result := answerOf(t, "text/event-stream", strings.Join([]string{
		`data: {"id":"c1","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","content":"a\ud83d","reasoning":"` + "\xe2\x82" + `"}},{"index":1,"delta":{"content":"` + "\xf0\x9f" + `"}}]}`,
		`data: {"choices":[{"index":0,"delta":{"content":"\ude00b` + "\xe2" + `","reasoning":"` + "\xac" + `"}},{"index":1,"delta":{"content":"` + "\x98\x80" + `"}}]}`,
		`data: {"choices":[{"index":0,"delta":{"content":"` + "\x82\xac" + `"}}]}`,
		`data: {"choices":[{"index":0,"delta":{"content":"c` + "\xe2" + `"},"finish_reason":"stop"},{"index":1,"delta":{"content":"\ud83d"},"finish_reason":"stop"}]}`,
	}, "\n\n")+"\n\ndata: [DONE]\n\n")
	if r.Text() != "a😀b€c\ufffd" {
		t.Errorf("the text is %q", r.Text())
	}
	for _, entry := range r.OfKind(job.KindText) {
		if !strings.Contains(r.Text(), entry) {
			t.Errorf("a piece is %q", entry)
		}
	}
	if log := strings.Join(r.OfKind(job.KindJSON), ""); strings.Contains(log, "\ufffd") || !strings.Contains(log, "€") || !strings.Contains(log, "😀") {
		t.Errorf("the events are %s", log)
	}
	sameJSON(t, "result", result, `{"id":"c1","object":"chat.completion","created":5,"model":"mm","choices":[
		{"index":0,"logprobs":null,"finish_reason":"stop","message":{"role":"assistant","content":"a😀b€c�","reasoning":"€"}},
		{"index":1,"logprobs":null,"finish_reason":"stop","message":{"role":"assistant","content":"😀�"}}]}`)
}

// What is said is stored, not its wrapping.
func TestLongReasoningFits(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 20 MB")
	}
	t.Parallel()
	wrapping := strings.Repeat("w", 400)
	var body strings.Builder
	const pieces = 20_000
	for i := range pieces {
		fmt.Fprintf(&body, `data: {"id":"%s","created":5,"model":"%s","choices":[{"index":0,"delta":{"reasoning_content":"word "},"logprobs":null,"finish_reason":null}],"n":%d}`+"\n\n", wrapping, wrapping, i)
	}
	r, result := answerOf(t, "text/event-stream", body.String()+"data: "+delta(`"content":"x"`)+"\n\n"+finishOf("stop"))
	stored := 0
	for _, event := range r.OfKind(job.KindJSON) {
		stored += len(event)
	}
	if words := pieces * len("word "); stored > 12*words || !strings.Contains(result, strings.Repeat("word ", pieces)) {
		t.Errorf("%d bytes are stored for %d bytes of words", stored, words)
	}
}

// A piece is not held while the server says nothing.
func TestReasoningIsNotHeldBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for _, word := range []string{"one", "two", "three"} {
				fmt.Fprintf(w, "data: %s\n\n", delta(`"reasoning":"`+word+`"`))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Minute)
			}
			fmt.Fprint(w, finishOf("stop"))
		}))
		a := exectest.Start(t, e, exectest.Task([]byte(hello)))
		for i := range 3 {
			synctest.Wait()
			if n := len(a.Sink.Record().OfKind(job.KindJSON)); n != i+1 {
				t.Errorf("%d pieces of reasoning are in the log, want %d", n, i+1)
			}
			time.Sleep(time.Minute)
		}
		if err := a.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// Arguments of a tool call are looked at once, however many pieces repeat its name.
func TestRepeatedNamesTakeLinearTime(t *testing.T) {
	if testing.Short() {
		t.Skip("reads many MiB")
	}
	t.Parallel()
	var body strings.Builder
	const pieces = 5_000
	for range pieces {
		fmt.Fprintf(&body, "data: %s\n\n", delta(`"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"`+strings.Repeat("{", 8)+strings.Repeat("}", 7)+`"}}]`))
	}
	_, result := answerOf(t, "text/event-stream", body.String()+finishOf("tool_calls"))
	if strings.Count(result, `"name":"f"`) != 1 || len(result) < 15*pieces {
		t.Errorf("the result is %.500s", result)
	}
}

// Log probabilities beyond their share of the log are only in the result.
func TestLogprobsLeaveRoomInTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 20 MB")
	}
	t.Parallel()
	list := strings.TrimSuffix(strings.Repeat(`{"token":"x","logprob":-0.1},`, 4000), ",")
	event := `{"choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[` + list + `]}}]}`
	var stream []string
	for range 180 {
		stream = append(stream, event)
	}
	r := run(t, newInMemory(t, streamHandler(append(stream, finishChunk("stop"))...)), hello)
	if n := strings.Count(string(r.Results[0].Body), `"logprob":-0.1`); n != 180*4000 || len(r.Text()) != 180 {
		t.Errorf("the result has %d log probabilities, the text %d words", n, len(r.Text()))
	}
	if log := r.OfKind(job.KindLog); len(log) != 1 {
		t.Errorf("the log is %q", log)
	}
}

// An event may be as large as an answer.
func TestLargeEventIsRead(t *testing.T) {
	if testing.Short() {
		t.Skip("reads many MiB")
	}
	t.Parallel()
	picture := strings.Repeat("QUJD", 1<<20)
	r, result := answerOf(t, "text/event-stream", "data: "+delta(`"content":"see","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,`+picture+`"}}]`)+"\n\n"+finishOf("stop"))
	if r.Text() != "see" || !strings.Contains(result, picture) {
		t.Errorf("the text is %q, the result has %d bytes", r.Text(), len(result))
	}
}

// Nested events cost little: they are refused before they are decoded.
func TestNestedEventIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("reads many MiB")
	}
	t.Parallel()
	for name, data := range map[string]string{
		"deep objects":     `{"choices":[{"delta":{"content":"x","a":` + strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_003) + `]}`,
		"deep lists":       `{"choices":[{"delta":{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}}]}`,
		"many members":     `{"choices":[{"delta":{"a":[` + strings.Repeat("0,", 300_000) + `0]}}]}`,
		"many choices":     `{"choices":[` + strings.Repeat("{},", 2000) + `{}]}`,
		"many of anything": `{"choices":[],"x":1` + strings.Repeat(`,"x":1`, 300_000) + `}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f, _ := runFailing(t, newInMemory(t, streamHandler(data)), hello)
		runtime.ReadMemStats(&after)
		wantFault{"upstream_bad_stream", job.Final, "levels"}.check(t, name, f)
		if testing.Verbose() {
			t.Logf("%s: %d bytes of events take about %d KiB", name, len(data), (after.TotalAlloc-before.TotalAlloc)>>10)
		}
	}
}

// A large usage would be part of every list.
func TestUsageIsBounded(t *testing.T) {
	t.Parallel()
	usage := `{"prompt_tokens":3,"total_tokens":9,"x":"` + strings.Repeat("x", 100_000) + `"}`
	r, result := answerOf(t, "text/event-stream", "data: "+delta(`"content":"a"`)+"\n\ndata: {\"choices\":[],\"usage\":"+usage+"}\n\n"+finishOf("stop"))
	if want := `{"prompt_tokens":3,"total_tokens":9}`; r.Usage[0] != want || len(result) > 1000 {
		t.Errorf("the usage is %.100s, the result has %d bytes", r.Usage[0], len(result))
	}
}

// Any byte of the connection is a sign of life.
func TestBytesAreSignsOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := make(chan struct{})
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for _, piece := range []string{": keep-alive\n\n", "data: " + delta("") + "\n\n", "da", "ta:\n\n", "\n"} {
				time.Sleep(time.Minute)
				fmt.Fprint(w, piece)
				_ = http.NewResponseController(w).Flush()
				life <- struct{}{}
			}
			fmt.Fprint(w, finishOf("stop"))
		}))
		a := exectest.Start(t, e, exectest.Task([]byte(hello)))
		for range 5 {
			before := a.Sink.Record().Alive
			<-life
			synctest.Wait()
			if a.Sink.Record().Alive <= before {
				t.Error("a piece of the answer was no sign of life")
			}
		}
		if err := a.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzAnswer checks that any answer ends an attempt with a result that is JSON, or with a fault
// whose message is bounded.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"data: " + delta(`"content":"a"`) + "\n\n" + finishOf("stop"),
		"data: " + delta(`"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b"}]`) + "\n\n" + finishOf("tool_calls"),
		`{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`, "event: error\ndata: x\n\n", "<title>x</title>",
		`data: {"choices":[{"delta":{"content":[{"type":"text","text":"\ud83d"}]}}],"x":NaN}` + "\n\n" + finishOf("length"),
		"\x1f\x8b\x08\x00", `[{"choices":[{"text":"x","finish_reason":{"type":"stop"}}]}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := newInMemory(t, answering(200, http.Header{"Content-Type": {"text/event-stream"}}, string(body)))
		a := exectest.Start(t, e, exectest.Task([]byte(hello)))
		err := a.Wait()
		if err == nil {
			if result := a.Sink.Record().Results[0].Body; !json.Valid(result) {
				t.Errorf("%q gives %s", body, result)
			}
			return
		}
		if fault := job.FaultOf(err); fault.Code == "executor_error" || len([]rune(fault.Message)) > 1000 {
			t.Errorf("%q fails with %v", body, err)
		}
	})
}
