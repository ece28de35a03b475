package llm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const goodAnswer = `{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`

// rawServer is a server on whose connections each request is answered by hand: answer gets the
// number of the connection and of the request on it, and returns false to hang up.
func rawServer(t *testing.T, answer func(c net.Conn, conn, request int) bool) (base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for conn := 1; ; conn++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			for request := 1; ; request++ {
				r, err := http.ReadRequest(in)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, r.Body)
				if !answer(c, conn, request) {
					break
				}
			}
			_ = c.Close()
		}
	}()
	return "http://" + l.Addr().String() + "/v1"
}

func onOwnConnections(t *testing.T, base string) *Executor {
	t.Helper()
	return mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: base, APIKey: testKey}}})
}

func httpAnswer(headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", len(body), headers, body)
}

// A server that closes an idle connection just when a request is sent on it costs no attempt.
func TestClosedIdleConnectionCostsNoAttempt(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	e := onOwnConnections(t, rawServer(t, func(c net.Conn, _, request int) bool {
		calls.Add(1)
		if request > 1 {
			return false
		}
		fmt.Fprint(c, httpAnswer("", goodAnswer))
		return true
	}))
	for range 3 {
		run(t, e, hello)
		time.Sleep(minIdle) // the connection is idle for so long
	}
	if calls.Load() != 5 {
		t.Errorf("the server was asked %d times", calls.Load())
	}
}

// A server that hangs up on every request is not asked again within an attempt.
func TestHangUpOnANewConnectionFails(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	e := onOwnConnections(t, rawServer(t, func(net.Conn, int, int) bool { calls.Add(1); return false }))
	f, _ := runFailing(t, e, hello)
	wantFault{"upstream_disconnected", job.Retryable, "broke off"}.check(t, "hang up", f)
	if calls.Load() != 1 {
		t.Errorf("the server was asked %d times", calls.Load())
	}
}

// Odd but valid HTTP is read, and odd and invalid HTTP is a fault with a bounded message.
func TestOddHTTP(t *testing.T) {
	t.Parallel()
	event := "data: " + delta(`"content":"x"`) + "\n\n"
	end := finishOf("stop")
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
	for name, c := range map[string]struct {
		answer string
		want   wantFault // code "" for success
	}{
		"early hints":            {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + httpAnswer("", goodAnswer), wantFault{}},
		"trailers":               {chunked + chunk(event) + chunk(end) + "0\r\nX-Sum: 1\r\n\r\n", wantFault{}},
		"more after [DONE]":      {chunked + chunk(event+end+event+`data: {"error":"late"}`+"\n\n") + chunk(strings.Repeat(": x\n", 10_000)), wantFault{}},
		"cut after the reason":   {chunked + chunk(event) + chunk("data: "+finishChunk("stop")+"\n\n"), wantFault{}},
		"no length":              {"HTTP/1.0 200 OK\r\n\r\n" + event + end, wantFault{}},
		"a bad chunk":            {chunked + chunk(event) + "zz\r\n" + end, wantFault{"upstream_disconnected", job.Retryable, "broke off"}},
		"cut in the middle":      {chunked + chunk(event), wantFault{"upstream_disconnected", job.Retryable, "broke off"}},
		"a short body":           {"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + event, wantFault{"upstream_disconnected", job.Retryable, "broke off"}},
		"too many headers":       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 1000) + "\r\n", wantFault{"upstream_disconnected", job.Retryable, "broke off"}},
		"another protocol":       {"SSH-2.0-OpenSSH_9.6 " + testKey + "\r\n", wantFault{"upstream_disconnected", job.Retryable, "broke off"}},
		"a redirect to a key":    {"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://other.invalid/v1?key=" + testKey + "\r\nContent-Length: 0\r\n\r\n", wantFault{"upstream_redirect", job.Final, "other.invalid"}},
		"an error without end":   {"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 50\r\n\r\n{\"error\":", wantFault{"upstream_rate_limited", job.Wait, ""}},
		"an empty body":          {httpAnswer("Content-Type: text/event-stream\r\n", ""), wantFault{"upstream_bad_answer", job.Retryable, "empty answer"}},
		"only signs of life":     {httpAnswer("", ": ping\n\ndata: {}\n\n"), wantFault{"upstream_incomplete", job.Retryable, "in the middle"}},
		"only the end":           {httpAnswer("", "data: [DONE]\n\n"), wantFault{"upstream_bad_stream", job.Retryable, "without any content"}},
		"no compression":         {httpAnswer("Content-Encoding: UTF-8\r\n", goodAnswer), wantFault{}},
		"an unknown compression": {httpAnswer("Content-Encoding: br\r\n", "\x01\x02"), wantFault{"upstream_bad_answer", job.Final, "compression"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := onOwnConnections(t, rawServer(t, func(conn net.Conn, _, _ int) bool {
				fmt.Fprint(conn, c.answer)
				return false
			}))
			if c.want.code == "" {
				run(t, e, hello)
				return
			}
			f, _ := runFailing(t, e, hello)
			c.want.check(t, name, f)
			if len([]rune(f.Error())) > 1000 {
				t.Errorf("the message has %d characters", len([]rune(f.Error())))
			}
		})
	}
}

// An error whose body does not end is judged by its status.
func TestErrorWithoutEndOfBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"error":{"message":"slow down`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		began := time.Now()
		f, _ := runFailing(t, e, hello)
		wantFault{"upstream_rate_limited", job.Wait, "slow down"}.check(t, "429", f)
		if took := time.Since(began); f.RetryAfter != 7*time.Second || took > errorTimeout {
			t.Errorf("it took %v and asks to wait %v", took, f.RetryAfter)
		}
	})
}

// A cancel ends an attempt at each point of it, and leaves nothing behind in the gate.
func TestCancelAtEachPoint(t *testing.T) {
	t.Parallel()
	for name, sends := range map[string]func(w http.ResponseWriter){
		"before the headers":      func(http.ResponseWriter) {},
		"in the body of an error": func(w http.ResponseWriter) { w.WriteHeader(500); fmt.Fprint(w, "{") },
		"before the first event":  func(w http.ResponseWriter) { w.WriteHeader(200) },
		"in an event":             func(w http.ResponseWriter) { fmt.Fprint(w, `data: {"choices"`) },
		"after the first event":   func(w http.ResponseWriter) { fmt.Fprint(w, "data: "+delta(`"content":"x"`)+"\n\n") },
		"after the finish reason": func(w http.ResponseWriter) { fmt.Fprint(w, "data: "+finishChunk("stop")+"\n\n") },
		"in an unstreamed answer": func(w http.ResponseWriter) { fmt.Fprint(w, `{"choices":[{"message":{"content":"`) },
		"in a packed stream":      func(w http.ResponseWriter) { fmt.Fprint(w, "\x1f\x8b\x08\x00\x00") },
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sends(w)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			sink := exectest.NewRecorder(t)
			ended := make(chan error, 1)
			go func() {
				ended <- e.Execute(ctx, exectest.Task([]byte(hello)), sink)
				sink.Close()
			}()
			synctest.Wait()
			cancel(exec.ErrCancelled)
			if err := <-ended; !errors.Is(err, exec.ErrCancelled) {
				t.Errorf("%s: the attempt ended with %v", name, err)
			}
			m := e.models["m"]
			m.gate.mu.Lock()
			if m.gate.active != 0 || m.begun.Load() != 0 || m.breaker.failures != 0 {
				t.Errorf("%s: %d calls are active, %d have begun, %d failures", name, m.gate.active, m.begun.Load(), m.breaker.failures)
			}
			m.gate.mu.Unlock()
		})
	}
}

// A key in the query of base_url does not appear in messages.
func TestKeyInBaseURLIsNotShown(t *testing.T) {
	t.Parallel()
	const key = "AIza-0123456789"
	e := mustNew(t, Config{Transport: newInMemory(t, answering(400, nil, `{"error":{"message":"API key not valid: `+key+`"}}`)).models["m"].client.Transport,
		Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1?key=" + key}}})
	f, _ := runFailing(t, e, hello)
	if strings.Contains(f.Error(), key) || !strings.Contains(f.Message, "not valid") {
		t.Error(f)
	}
}

// A proxy's words about its upstream are not a refusal of streams.
func TestUpstreamIsNoStream(t *testing.T) {
	t.Parallel()
	first := true
	s := &pickyServer{refuse: func(bool, bool) (int, string) {
		if first {
			first = false
			return 502, `{"error":"cannot connect to upstream"}`
		}
		return 0, ""
	}}
	e := newInMemory(t, s)
	f, _ := runFailing(t, e, hello)
	wantFault{"upstream_error", job.Retryable, "cannot connect"}.check(t, "502", f)
	run(t, e, hello)
	if last := s.asked[len(s.asked)-1]; len(s.asked) != 2 || last != "true true" {
		t.Errorf("it was asked %v", s.asked)
	}
}

// Headers that come too slowly reach the request timeout.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	e := onOwnConnections(t, rawServer(t, func(c net.Conn, _, _ int) bool {
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX-A: ")
		for {
			if _, err := fmt.Fprint(c, "a"); err != nil {
				return false
			}
			time.Sleep(time.Millisecond)
		}
	}))
	task := exectest.Task([]byte(hello))
	task.Job.Policy.Timeouts.Request = 50 * time.Millisecond
	f := job.FaultOf(exectest.Start(t, e, task).Wait())
	wantFault{"upstream_timeout", job.Retryable, "within 50ms"}.check(t, "slow headers", f)
}

// A server that shuts down over HTTP/2 (GOAWAY) finishes the streams that it has begun. One that
// resets a stream breaks it off.
func TestHTTP2ServerGoesAway(t *testing.T) {
	t.Parallel()
	var server *httptest.Server
	var resets atomic.Bool
	stopped := make(chan struct{})
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: "+delta(`"content":"x"`)+"\n\n")
		_ = http.NewResponseController(w).Flush()
		if resets.Load() {
			panic(http.ErrAbortHandler)
		}
		shuttingDown := make(chan struct{})
		server.Config.RegisterOnShutdown(func() { close(shuttingDown) })
		go func() {
			defer close(stopped)
			_ = server.Config.Shutdown(context.Background())
		}()
		<-shuttingDown
		fmt.Fprint(w, finishOf("stop"))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	transport := newTransport()
	transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	t.Cleanup(transport.CloseIdleConnections)
	e := mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: server.URL}}, Transport: transport})

	resets.Store(true)
	f, _ := runFailing(t, e, hello)
	wantFault{"upstream_disconnected", job.Retryable, "broke off"}.check(t, "reset", f)
	resets.Store(false)
	if r := run(t, e, hello); r.Text() != "x" {
		t.Errorf("the text is %q", r.Text())
	}
	<-stopped
	f, _ = runFailing(t, e, hello)
	wantFault{"upstream_unreachable", job.Wait, "refuses connections"}.check(t, "stopped", f)
}
