package simmodel

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

// The answer of each fault has what its description says.
func TestFaultsSayWhatTheyDo(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{Tokens: 5, FaultAfter: 2, RetryAfter: 2 * time.Second}))
	for fault, want := range map[Fault]struct {
		status int
		has    string // of the body or the headers
	}{
		Quota:           {429, `"code":"insufficient_quota"`},
		NoRetry:         {429, `X-Should-Retry: false`},
		WaitInMessage:   {429, `try again in 2s`},
		WaitInHeaders:   {429, `X-Ratelimit-Reset-Requests: 2s`},
		WaitInDetails:   {429, `"retryDelay":"2s"`},
		DetailList:      {422, `"detail":[{`},
		WebPage:         {502, `<title>502 Bad Gateway`},
		PackedError:     {400, "Content-Encoding: gzip"},
		Redirect:        {307, "Location: http://elsewhere.invalid"},
		EchoKey:         {401, "sk-echo"},
		NoStreamOptions: {400, "stream_options"},
		NoStream:        {400, `"param":"stream"`},
		DoneMidStream:   {200, "}\n\ndata: [DONE]"},
		ErrorEvent:      {200, "event: error\ndata: {"},
		ErrorObject:     {200, `"object":"error"`},
		ErrorInChoice:   {200, `"error":{"code":502`},
		FinishError:     {200, `"finish_reason":"error"`},
		NestedEvent:     {200, `{"a":{"a":{"a":`},
		EmptyDeltas:     {200, `"delta":{},"finish_reason":null`},
		SingleNewlines:  {200, "}\ndata: [DONE]\n"},
		EmptyData:       {200, "data:\n\ndata: {"},
		ByteOrderMark:   {200, "\ufeffdata: {"},
		CarriageReturns: {200, "}\r\rdata: "},
		ChunkPerLine:    {200, "}\n{"},
		StreamAsJSON:    {200, "Content-Type: application/json"},
		OddTypes:        {200, `"id":12345`},
		TextParts:       {200, `"content":[{"type":"text"`},
		OtherFields:     {200, `"citations":[`},
		HugeUsage:       {200, `"trace":"xxxx`},
		LongReasoning:   {200, `"reasoning_content":"word "`},
		Logprobs:        {200, `"logprob":-0.10`},
		LargeEvent:      {200, `base64,iVBO`},
		CutCharacters:   {200, "costs 1 \xe2\""},
		ToolCalls:       {200, `"index":1,"id":"call_b"`},
		ToolsAtZero:     {200, `"index":0,"id":"call_b"`},
		ToolsNoIndex:    {200, `[{"id":"call_b"`},
		ToolsMixed:      {200, `{"id":"call_a","function":{"arguments":":1}"}}`},
		ToolsRepeat:     {200, `"name":"stop","arguments":"}"`},
	} {
		if testing.Short() && fault == LargeEvent {
			continue // the race detector needs a second for its bytes
		}
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://sim.invalid/v1/chat/completions",
			strings.NewReader(fmt.Sprintf(`{"messages":[{"role":"user","content":"x"}],"model":"sim/%s","stream":true,"stream_options":{"include_usage":true}}`, fault)))
		req.Header.Set("Authorization", "Bearer sk-echo")
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var all strings.Builder
		_ = resp.Header.Write(&all)
		if all.Write(body); err != nil || resp.StatusCode != want.status || !strings.Contains(all.String(), want.has) {
			t.Errorf("%s: %d, %v: %.2000s", fault, resp.StatusCode, err, &all)
		}
	}
	for _, fault := range Faults() {
		if fault.Does() == "" {
			t.Errorf("%s has no description", fault)
		}
	}
}

func TestPackedStream(t *testing.T) {
	t.Parallel()
	_, _, body := ask(t, loopback.Transport(New(Options{Tokens: 2})), `{"messages":[{"role":"user","content":"x"}],"stream":true,"sim":{"fault":"packed-stream"}}`)
	unpacked, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(unpacked); err != nil || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
		t.Errorf("%v: %s", err, text)
	}
}

const streamed = `{"messages":[{"role":"user","content":"x"}],"stream":true}`

func TestKeepAliveComments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, _, body := ask(t, loopback.Transport(New(Options{Tokens: 2, FirstToken: 5*time.Second - 1, TokensPerSecond: 0.5, KeepAlive: time.Second})), streamed)
		if n := strings.Count(body, ": keep-alive\n\n"); n != 4+1 || !strings.HasPrefix(body, ":") {
			t.Errorf("%d comments: %s", n, body)
		}
	})
}

func TestRequestsPerMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rt := loopback.Transport(New(Options{Tokens: 1, RequestsPerMinute: 2}))
		statuses := func(n int) (all []int, after string) {
			for range n {
				status, header, _ := ask(t, rt, streamed)
				all, after = append(all, status), header.Get("Retry-After")
			}
			return all, after
		}
		if all, after := statuses(3); fmt.Sprint(all) != "[200 200 429]" || after != "60" {
			t.Errorf("%v, and wait %s s", all, after)
		}
		time.Sleep(time.Minute)
		if all, _ := statuses(3); fmt.Sprint(all) != "[200 200 429]" {
			t.Errorf("%v after a minute", all)
		}
	})
}

func TestFailUser(t *testing.T) {
	t.Parallel()
	rt := loopback.Transport(New(Options{Tokens: 1, FailUser: "ann"}))
	for user, want := range map[string]int{"ann": 500, "bob": 200} {
		if status, _, _ := ask(t, rt, `{"messages":[{"role":"user","content":"x"}],"user":"`+user+`"}`); status != want {
			t.Errorf("%s gets %d", user, status)
		}
	}
}

// A model loads once, and the load is given up when all who wait for it have gone.
func TestLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rt := loopback.Transport(New(Options{Tokens: 1, Load: 3 * time.Minute}))
		ctx, leave := context.WithTimeout(t.Context(), 2*time.Minute)
		defer leave()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://sim.invalid/v1/chat/completions", strings.NewReader(streamed))
		if _, err := rt.RoundTrip(req); err == nil {
			t.Error("it was answered while the model was loading")
		}
		synctest.Wait()
		for _, want := range []time.Duration{3 * time.Minute, 0} {
			start := time.Now()
			if status, _, _ := ask(t, rt, streamed); status != 200 || time.Since(start) != want {
				t.Errorf("%d after %v, want %v", status, time.Since(start), want)
			}
		}
	})
}

// A connection dies after its requests: it answers nothing and stays open.
func TestDeadAfter(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: New(Options{Tokens: 1, DeadAfter: 1}), ConnContext: ConnContext}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(Listener(ln))
	}()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	send := func(timeout time.Duration) error {
		ctx, stop := context.WithTimeout(t.Context(), timeout)
		defer stop()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+ln.Addr().String()+"/v1/chat/completions", strings.NewReader(streamed))
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := send(time.Minute); err != nil {
		t.Error(err)
	}
	if err := send(100 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the dead connection: %v", err)
	}
	if err := send(time.Minute); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}
