package simmodel

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// post sends a chat-completions request.
func post(t *testing.T, rt http.RoundTripper, body string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://sim.invalid/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return rt.RoundTrip(req)
}

func ask(t *testing.T, rt http.RoundTripper, body string) (status int, header http.Header, answer string) {
	t.Helper()
	resp, err := post(t, rt, body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

// events splits a stream into the data of its events.
func events(stream string) []string {
	var all []string
	for event := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		all = append(all, strings.TrimPrefix(event, "data: "))
	}
	return all
}

type chunk struct {
	ID, Object, Model string
	Choices           []struct {
		Delta        struct{ Role, Content string }
		Message      struct{ Role, Content string }
		FinishReason string `json:"finish_reason"`
	}
	Usage *struct {
		Completion int `json:"completion_tokens"`
	}
	Error *struct{ Message, Type string }
}

func decode(t *testing.T, data string) chunk {
	t.Helper()
	var c chunk
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return c
}

func TestStreamHasRoleTokensFinishUsageAndDone(t *testing.T) {
	t.Parallel()
	_, header, body := ask(t, loopback.Transport(New(Options{})),
		`{"model":"any","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Why is it slow?"}]}`)
	if got := header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("the content type is %q", got)
	}
	all := events(body)
	n := len(all)
	if all[n-1] != "[DONE]" {
		t.Fatalf("the last event is %s", all[n-1])
	}
	first, finish, usage := decode(t, all[0]), decode(t, all[n-3]), decode(t, all[n-2])
	if first.Object != "chat.completion.chunk" || first.Model != "any" || first.Choices[0].Delta.Role != "assistant" {
		t.Errorf("the first event is %s", all[0])
	}
	if finish.Choices[0].FinishReason != "stop" {
		t.Errorf("the finish is %s", all[n-3])
	}
	if len(usage.Choices) != 0 || usage.Usage == nil || usage.Usage.Completion != n-4 {
		t.Errorf("the usage is %s, want %d tokens", all[n-2], n-4)
	}
	var text strings.Builder
	for _, data := range all[:n-3] {
		c := decode(t, data)
		text.WriteString(c.Choices[0].Delta.Content)
		if c.ID != first.ID {
			t.Errorf("the id changed to %s", c.ID)
		}
	}
	if !strings.Contains(text.String(), "Why is it slow?") || strings.Contains(text.String(), "  ") {
		t.Errorf("the text is %q", text.String())
	}
}

func TestStreamingDoesNotChangeAnswer(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{}))
	question := `"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"Part one"},{"type":"image_url"},{"type":"text","text":"part two"}]}]`
	_, _, one := ask(t, rt, `{`+question+`}`)
	_, _, two := ask(t, rt, `{`+question+`}`)
	if decode(t, one).Choices[0] != decode(t, two).Choices[0] {
		t.Errorf("%s and then %s", one, two)
	}
	message := decode(t, one).Choices[0].Message.Content
	for _, want := range []string{"Part one part two", "One message"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q does not contain %q", message, want)
		}
	}
	_, _, stream := ask(t, rt, `{"stream":true,`+question+`}`)
	var text strings.Builder
	for _, data := range events(stream) {
		if data != "[DONE]" {
			text.WriteString(decode(t, data).Choices[0].Delta.Content)
		}
	}
	if text.String() != message {
		t.Errorf("the streamed text is %q, the unstreamed one %q", text.String(), message)
	}
}

func TestTokenLimits(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{}))
	for body, want := range map[string]struct {
		tokens int
		finish string
	}{
		`"sim":{"tokens":7}`:                           {7, "stop"},
		`"sim":{"tokens":500}`:                         {500, "stop"},
		`"max_tokens":5`:                               {5, "length"},
		`"sim":{"tokens":9},"max_completion_tokens":4`: {4, "length"},
	} {
		_, _, answer := ask(t, rt, `{"messages":[{"role":"user","content":"x"}],`+body+`}`)
		c := decode(t, answer)
		if c.Usage.Completion != want.tokens || c.Choices[0].FinishReason != want.finish {
			t.Errorf("%s: %d tokens, finish %q; want %v", body, c.Usage.Completion, c.Choices[0].FinishReason, want)
		}
	}
}

func TestInvalidRequestsAreRefused(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{}))
	for _, body := range []string{
		``, `[]`, `{}`, `{"messages":[]}`, `{"messages":"hello"}`,
		`{"messages":[{"role":"user"}],"sim":{"speed":1}}`,
		`{"messages":[{"role":"user"}],"sim":{"tokens":-1}}`,
		`{"messages":[{"role":"user"}],"sim":{"first_token_ms":1e12}}`,
		`{"messages":[{"role":"user"}],"sim":{"fault":"explode"}}`,
		`{"messages":[{"role":"user"}],"sim":{"fault":"200"}}`,
		`{"messages":[{"role":"user"}],"sim":{"key":"` + strings.Repeat("k", 300) + `"}}`,
	} {
		status, _, answer := ask(t, rt, body)
		if c := decode(t, answer); status != 400 || c.Error == nil || c.Error.Message == "" {
			t.Errorf("%.80s: %d %s", body, status, answer)
		}
	}
}

func TestFirstTokenAndTokenRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		resp, err := post(t, loopback.Transport(New(Options{FirstToken: 2 * time.Second, TokensPerSecond: 10, Tokens: 21})),
			`{"stream":true,"messages":[{"role":"user","content":"x"}]}`)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("the answer started after %v, want 2s", waited)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("the answer took %v, want 4s", took)
		}
	})
}

func TestFaultsWithAStatus(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{RetryAfter: 1500 * time.Millisecond}))
	for fault, want := range map[string]struct {
		status     int
		retryAfter string
	}{"400": {400, ""}, "401": {401, ""}, "429": {429, "2"}, "500": {500, ""}, "503": {503, "2"}} {
		status, header, answer := ask(t, rt, `{"messages":[{"role":"user"}],"sim":{"fault":"`+fault+`"}}`)
		if status != want.status || header.Get("Retry-After") != want.retryAfter || decode(t, answer).Error == nil {
			t.Errorf("fault %s: %d, Retry-After %q, %s", fault, status, header.Get("Retry-After"), answer)
		}
	}
}

func TestFaultTimesCountsRequestsByKey(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{}))
	var got []int
	for _, key := range []string{"a", "a", "b", "a", "b", "b"} {
		status, _, _ := ask(t, rt, `{"messages":[{"role":"user"}],"sim":{"fault":"500","fault_times":2,"key":"`+key+`"}}`)
		got = append(got, status)
	}
	want := []int{500, 500, 500, 200, 500, 200}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("the answers are %v, want %v", got, want)
		}
	}
}

// The faults happen over a real connection and in memory.
func TestFaultsMidStream(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(New(Options{FaultAfter: 2}))
	defer server.Close()
	network := &http.Transport{}
	defer network.CloseIdleConnections()
	for name, rt := range map[string]http.RoundTripper{"network": network, "memory": loopback.Transport(New(Options{FaultAfter: 2}))} {
		for fault, check := range map[Fault]func(body string, err error) bool{
			CloseMidStream: func(body string, err error) bool { return err != nil && strings.Count(body, "data: ") == 3 },
			EndMidStream:   func(body string, err error) bool { return err == nil && !strings.Contains(body, "[DONE]") },
			ErrorMidStream: func(body string, err error) bool { return err == nil && strings.Contains(body, `"error":`) },
			MalformedSSE:   func(body string, err error) bool { return err == nil && !json.Valid([]byte(events(body)[3])) },
			EnormousLine:   func(body string, err error) bool { return err == nil && len(body) > 8<<20 },
			WrongType:      func(body string, err error) bool { return err == nil && strings.HasPrefix(body, "<!doctype") },
			IgnoreStream:   func(body string, err error) bool { return err == nil && strings.HasPrefix(body, "{") },
		} {
			if testing.Short() && fault == EnormousLine {
				continue // the race detector needs a second for its bytes
			}
			req, _ := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/v1/chat/completions",
				strings.NewReader(`{"stream":true,"messages":[{"role":"user"}],"sim":{"fault":"`+string(fault)+`"}}`))
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Errorf("%s, %s: %v", name, fault, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !check(string(body), err) {
				t.Errorf("%s, %s: %.300s, %v", name, fault, body, err)
			}
		}
	}
}

func TestCloseBreaksTheConnection(t *testing.T) {
	t.Parallel()
	_, err := post(t, loopback.Transport(New(Options{Fault: Close})), `{"messages":[{"role":"user"}]}`)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the error is %v", err)
	}
}

func TestHandlerReturnsWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(resp *http.Response, cancel func()){
		"by closing the body": func(resp *http.Response, _ func()) { resp.Body.Close() },
		"by cancelling":       func(_ *http.Response, cancel func()) { cancel() },
	} {
		left := make(chan struct{})
		h := New(Options{Fault: HangMidStream, FaultAfter: 1})
		rt := loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(left)
			h.ServeHTTP(w, r)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://sim.invalid/v1/chat/completions",
			strings.NewReader(`{"stream":true,"messages":[{"role":"user"}]}`))
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if line, _ := bufio.NewReader(resp.Body).ReadString('\n'); !strings.HasPrefix(line, "data: {") {
			t.Errorf("%s: the first line is %q", name, line)
		}
		leave(resp, cancel)
		<-left
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the body can still be read", name)
		}
		resp.Body.Close()
		cancel()
	}
}

func TestHangEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://sim.invalid/v1/chat/completions",
			strings.NewReader(`{"messages":[{"role":"user"}]}`))
		_, err := loopback.Transport(New(Options{Fault: Hang})).RoundTrip(req)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestModelsAreListed(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequest("GET", "/v1/models", nil)
	w := httptest.NewRecorder()
	New(Defaults()).ServeHTTP(w, req)
	want := `{"data":[{"id":"sim","object":"model","created":0,"owned_by":"meanwhile"}],"object":"list"}`
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("the models are %s", got)
	}
}

func TestOtherPathsAreNotFound(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	New(Options{}).ServeHTTP(w, httptest.NewRequest("GET", "/v2/chat", nil))
	if w.Code != 404 || decode(t, w.Body.String()).Error == nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTimestampsReportSendTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		rt := loopback.Transport(New(Options{Timestamps: true, FirstToken: time.Second, TokensPerSecond: 1, Tokens: 3}))
		_, _, answer := ask(t, rt, `{"stream":true,"messages":[{"role":"user","content":"when?"}]}`)
		var text string
		for _, event := range events(answer) {
			var c chunk
			if json.Unmarshal([]byte(event), &c) == nil && len(c.Choices) > 0 {
				text += c.Choices[0].Delta.Content
			}
		}
		want := ""
		for i := range 3 {
			want += fmt.Sprintf("%d ", start.Add(time.Duration(i+1)*time.Second).UnixMicro())
		}
		if text != want {
			t.Errorf("the text is %q, want %q", text, want)
		}
	})
}
