package llm

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Answers in the words of real servers, as their users have reported them.

// Streams of real servers become what an SDK would assemble.
func TestStreamsOfRealServers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream, text, want string
	}{
		"vLLM, usage in each chunk": {
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":3,"total_tokens":3,"completion_tokens":0},"prompt_token_ids":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}],"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1}}

data: [DONE]

`, "Hi", `{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1}}`},
		"Azure, with filters before and after": {
			`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]}

data: {"choices":[{"delta":{"content":"Hi","role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],"created":5,"id":"a","model":"mm","object":"chat.completion.chunk","system_fingerprint":"fp"}

data: {"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}],"created":5,"id":"a","model":"mm","object":"chat.completion.chunk","system_fingerprint":"fp"}

data: {"choices":[{"content_filter_offsets":{"check_offset":1},"finish_reason":null,"index":0}],"created":0,"id":"","model":"","object":""}

data: [DONE]

`, "Hi", `{"id":"a","object":"chat.completion","created":5,"model":"mm","system_fingerprint":"fp","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}],"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop","content_filter_offsets":{"check_offset":1}}]}`},
		"Together, the text twice": {
			`data: {"id":"t","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"text":"Hi","logprobs":null,"finish_reason":null,"delta":{"role":"assistant","content":"Hi","tool_calls":null}}],"usage":null}

data: {"id":"t","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":null},"text":"","logprobs":null,"finish_reason":"eos"}],"usage":{"total_tokens":2}}

data: [DONE]

`, "Hi", `{"id":"t","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"eos"}],"usage":{"total_tokens":2}}`},
		"Perplexity, the whole message in each chunk": {
			`data: {"id":"p","model":"mm","created":5,"object":"chat.completion.chunk","citations":["u"],"choices":[{"index":0,"finish_reason":null,"message":{"role":"assistant","content":"H"},"delta":{"role":"assistant","content":"H"}}]}

data: {"id":"p","model":"mm","created":5,"object":"chat.completion.chunk","citations":["u"],"choices":[{"index":0,"finish_reason":null,"message":{"role":"assistant","content":"Hi"},"delta":{"role":"assistant","content":"i"}}]}

data: {"id":"p","model":"mm","created":5,"object":"chat.completion.done","citations":["u"],"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Hi"},"delta":{"role":"assistant","content":""}}]}

`, "Hi", `{"id":"p","object":"chat.completion","created":5,"model":"mm","citations":["u"],"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}]}`},
		"messages so far in place of deltas": {
			`data: {"id":"w","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"H"},"finish_reason":null}]}

data: {"id":"w","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":null}]}

data: {"id":"w","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}

`, "Hi", `{"id":"w","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}]}`},
		"pieces of a message, a line each": {
			`{"id":"w","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"H"},"finish_reason":null}]}
{"id":"w","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"i"},"finish_reason":null}]}
{"id":"w","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}
`, "Hi", `{"id":"w","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}]}`},
		"numbers in place of text": {
			`data: {"id":"n","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","content":4}}]}

data: {"id":"n","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":2}}]}

data: {"id":"n","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":" x"}}]}

data: {"id":"n","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":7},"finish_reason":"stop"}]}

`, "42 x7", `{"id":"n","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"42 x7"},"logprobs":null,"finish_reason":"stop"}]}`},
		"DashScope, null as a word": {
			`data: {"id":"d","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","content":"H"},"finish_reason":"null"}]}

data: {"id":"d","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]}

data: [DONE]

`, "Hi", `{"id":"d","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}]}`},
		"TGI, a call that is no list": {
			`data:{"id":"","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":{"index":0,"id":"","type":"function","function":{"name":"find","arguments":"{\"q\":"}}},"logprobs":null,"finish_reason":null}]}

data:{"id":"","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":{"index":0,"id":"","type":"function","function":{"name":null,"arguments":"1}"}}},"logprobs":null,"finish_reason":"eos_token"}]}

data: [DONE]

`, "", `{"id":"","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}}]},"logprobs":null,"finish_reason":"eos_token"}]}`},
		"an id that changes within a call": {
			`data: {"id":"s","created":5,"model":"mm","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"find","arguments":""}}]},"finish_reason":null}]}

data: {"id":"s","created":5,"model":"mm","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_2","type":"function","function":{"name":null,"arguments":"{\"q\":"}}]},"finish_reason":null}]}

data: {"id":"s","created":5,"model":"mm","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_3","type":"function","function":{"arguments":"1}"}}]},"finish_reason":null}]}

data: {"id":"s","created":5,"model":"mm","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: [DONE]

`, "", `{"id":"s","object":"chat.completion","created":5,"model":"mm","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"find","arguments":"{\"q\":1}"}}]},"logprobs":null,"finish_reason":"tool_calls"}]}`},
		"OpenRouter, details of two kinds at one index": {
			`: OPENROUTER PROCESSING

data: {"id":"o","provider":"p","model":"mm","created":5,"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"a","reasoning_details":[{"type":"reasoning.text","text":"a","format":"f","index":0}]},"finish_reason":null,"native_finish_reason":null}]}

data: {"id":"o","provider":"p","model":"mm","created":5,"choices":[{"index":0,"delta":{"content":"","reasoning":"b","reasoning_details":[{"type":"reasoning.text","text":"b","format":"f","index":0}]},"finish_reason":null}]}

data: {"id":"o","provider":"p","model":"mm","created":5,"choices":[{"index":0,"delta":{"content":"Hi","reasoning_details":[{"type":"reasoning.encrypted","data":"QUJD","id":"r1","format":"f","index":0}]},"finish_reason":"stop","native_finish_reason":"STOP"}]}

data: [DONE]

`, "Hi", `{"id":"o","object":"chat.completion","created":5,"model":"mm","provider":"p","choices":[{"index":0,"message":{"role":"assistant","content":"Hi","reasoning":"ab","reasoning_details":[{"type":"reasoning.text","text":"ab","format":"f","index":0},{"type":"reasoning.encrypted","data":"QUJD","id":"r1","format":"f","index":0}]},"logprobs":null,"finish_reason":"stop","native_finish_reason":"STOP"}]}`},
	} {
		r, result := answerOf(t, "text/event-stream; charset=utf-8", c.stream)
		if r.Text() != c.text {
			t.Errorf("%s: the text is %q", name, r.Text())
		}
		sameJSON(t, name, result, c.want)
	}
}

// Streams of real servers that were given up fail, with the server's reason.
func TestFailedStreamsOfRealServers(t *testing.T) {
	t.Parallel()
	text := "data: " + delta(`"content":"half"`) + "\n\n"
	for body, w := range map[string]wantFault{
		// llama.cpp until 2025: a field of its own, and then [DONE].
		text + `error: {"code":500,"message":"the slot was lost","type":"server_error"}` + "\n\ndata: [DONE]\n\n":                                                               {"upstream_error", job.Retryable, "the slot was lost"},
		`error: {"code":400,"message":"the request exceeds the available context size","type":"invalid_request_error"}` + "\n\ndata: [DONE]\n\n":                                {"upstream_rejected", job.Final, "available context size"},
		text + `data: {"id":"g","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","error":"over capacity, stopped early"}}` + "\n\ndata: [DONE]\n\n": {"upstream_error", job.Retryable, "stopped early"},
		text + `data: {"id":"d","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"null"}]}` + "\n\n":                                                               {"upstream_incomplete", job.Retryable, ""},
		// Ollama, LM Studio, TGI, LiteLLM, OpenRouter, Gemini.
		text + `data: {"error":"an error was encountered while running the model: unexpected EOF"}` + "\n\n":                                                                            {"upstream_error", job.Retryable, "unexpected EOF"},
		"event: error\ndata: {\"error\":{\"message\":\"The model has crashed without additional information. (Exit code: 6)\"}}\n\n":                                                    {"upstream_error", job.Retryable, "Exit code: 6"},
		"data:{\"error\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096\",\"error_type\":\"validation\"}\n\n":                                             {"upstream_rejected", job.Final, "must be <= 4096"},
		text + `data: {"error": {"message": "litellm.APIError: the backend went away", "type": null, "param": null, "code": "500"}}` + "\n\n":                                           {"upstream_error", job.Retryable, "went away"},
		text + `data: {"id":"o","provider":"p","error":{"code":502,"message":"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}` + "\n\n": {"upstream_error", job.Retryable, "Provider disconnected"},
		`[{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}]`:                                                                  {"upstream_unavailable", job.Wait, "overloaded"},
	} {
		f, _ := runFailing(t, newInMemory(t, answering(200, http.Header{"Content-Type": {"text/event-stream"}}, body)), hello)
		w.check(t, body, f)
	}
}

// Errors of real servers have the right consequence.
func TestErrorsOfRealServers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   wantFault
		wait   time.Duration
	}{
		// Groq: no wait makes the request fit, whatever its code says.
		{413, `{"error":{"message":"Request too large for model llama in organization org on tokens per minute (TPM): Limit 6000, Requested 12328, please reduce your message size and try again. Need more tokens? Upgrade at https://console.groq.com/settings/billing","type":"tokens","code":"rate_limit_exceeded"}}`, wantFault{"upstream_rejected", job.Final, "Requested 12328"}, 0},
		{429, `{"error":{"message":"Rate limit reached for model llama on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443. Please try again in 4.77s. Need more tokens? Upgrade at https://console.groq.com/settings/billing","type":"tokens","code":"rate_limit_exceeded"}}`, wantFault{"upstream_rate_limited", job.Wait, ""}, 4770 * time.Millisecond},
		{429, `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.\nPlease retry in 38.38s.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"38s"}]}}]`, wantFault{"upstream_rate_limited", job.Wait, ""}, 38 * time.Second},
		{429, `{"statusCode":429,"message":"Rate limit is exceeded. Try again in 5 seconds."}`, wantFault{"upstream_rate_limited", job.Wait, ""}, 5 * time.Second},
		{429, `{"error":{"message":"litellm.RateLimitError: No deployments available for selected model, Try again in 5 seconds. Passed model=m","type":"None","param":"None","code":"429"}}`, wantFault{"upstream_rate_limited", job.Wait, ""}, 5 * time.Second},
		{429, `{"error":{"message":"Budget has been exceeded! Current cost: 5.1, Max budget: 5.0","type":"budget_exceeded","param":null,"code":"429"}}`, wantFault{"upstream_quota_exhausted", job.Final, "Max budget"}, 0},
		{402, `{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}`, wantFault{"upstream_quota_exhausted", job.Final, ""}, 0},
		{503, `{"error":"Model big/one is currently loading","estimated_time":20.0}`, wantFault{"upstream_unavailable", job.Wait, "loading"}, 20 * time.Second},
		{503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, wantFault{"upstream_unavailable", job.Wait, "Loading model"}, 0},
		{503, `{"error":{"message":"server busy, please try again.  maximum pending requests exceeded","type":"api_error"}}`, wantFault{"upstream_unavailable", job.Wait, "server busy"}, 0},
		{501, `{"error":{"code":501,"message":"This server does not support tools","type":"not_supported_error"}}`, wantFault{"upstream_rejected", job.Final, "does not support tools"}, 0},
		{400, `{"error":{"message":"The response was filtered due to the prompt triggering the content management policy.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`, wantFault{"upstream_rejected", job.Final, "filtered"}, 0},
		{401, `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`, wantFault{"upstream_unauthorized", job.Final, "subscription key"}, 0},
		{404, `{"error":{"message":"model \"x\" not found, try pulling it first","type":"api_error"}}`, wantFault{"upstream_not_found", job.Final, "try pulling it"}, 0},
		{529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req"}`, wantFault{"upstream_unavailable", job.Wait, "Overloaded"}, 0},
		{400, `{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}`, wantFault{"upstream_rejected", job.Final, "4096"}, 0},
		{200, ``, wantFault{"upstream_bad_answer", job.Retryable, "empty answer"}, 0},
		{204, ``, wantFault{"upstream_bad_answer", job.Retryable, "empty answer"}, 0},
	} {
		f, _ := runFailing(t, newInMemory(t, answering(c.status, http.Header{"Content-Type": {"application/json"}}, c.body)), hello)
		c.want.check(t, c.body, f)
		if f.RetryAfter != c.wait {
			t.Errorf("%s: it asks to wait %v, want %v", c.body, f.RetryAfter, c.wait)
		}
	}
}

// A date is compared with the server's own clock.
func TestDatesOfAServerWithAnotherClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		there := time.Now().Add(ahead)
		f, _ := runFailing(t, newInMemory(t, answering(429, http.Header{
			"Date":        {there.UTC().Format(http.TimeFormat)},
			"Retry-After": {there.Add(30 * time.Second).UTC().Format(http.TimeFormat)},
		}, "")), hello)
		if (f.RetryAfter - 30*time.Second).Abs() > 2*time.Second {
			t.Errorf("%v ahead: it waits %v", ahead, f.RetryAfter)
		}
	}
}

// One event with many chunks takes linear time, and no deep stack.
func TestPackedEventTakesLinearTime(t *testing.T) {
	if testing.Short() {
		t.Skip("reads many MiB")
	}
	t.Parallel()
	for name, packed := range map[string]string{
		"one after another": strings.Repeat("{}", 1<<18),
		"a list":            "[" + strings.Repeat("{},", 1<<17) + "{}]",
		"in a delta":        `{"choices":[{"delta":{"x":[` + strings.Repeat("{},", 1<<15) + `{}]}}]}`,
	} {
		began := time.Now()
		if r, _ := answerOf(t, "text/event-stream", "data: "+packed+"\n\ndata: "+delta(`"content":"x"`)+"\n\n"+finishOf("stop")); r.Text() != "x" {
			t.Errorf("%s: the text is %q", name, r.Text())
		}
		// Quadratic time takes minutes.
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}

// What goes into the result and not into the log is bounded, too, while it arrives.
func TestUnwrittenMembersAreBounded(t *testing.T) {
	t.Parallel()
	sink := exectest.NewRecorder(t)
	defer sink.Close()
	e := newInMemory(t, http.NotFoundHandler())
	c := call{model: e.models["m"], permit: &permit{answering: true}, out: sink}
	if err := c.handleChunk([]byte(`{"x":1}`), false); err != nil {
		t.Fatal(err)
	}
	c.completion.kept = job.MaxResult
	err := c.handleChunk([]byte(`{"x":"long"}`), false)
	wantFault{"upstream_too_large", job.Final, ""}.check(t, "members", job.FaultOf(err))
}

// Short events are counted like long ones.
func TestShortEventsAreCounted(t *testing.T) {
	t.Parallel()
	in := newEventReader(strings.NewReader(strings.Repeat("data: {}\n\n", 100)), func() {})
	for range 100 {
		if _, err := in.next(); err != nil {
			t.Fatal(err)
		}
	}
	if in.total < 995 {
		t.Errorf("%d bytes were counted", in.total)
	}
}
