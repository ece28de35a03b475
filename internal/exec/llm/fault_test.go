package llm

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// runFailing runs one attempt, which must fail with a fault.
func runFailing(t *testing.T, e exec.Executor, input string) (*job.Fault, exectest.Record) {
	t.Helper()
	a := exectest.Start(t, e, exectest.Task([]byte(input)))
	err := a.Wait()
	if err == nil {
		t.Fatal("the attempt succeeded")
	}
	if f := job.FaultOf(err); f.Code != "executor_error" {
		return f, a.Sink.Record()
	}
	t.Fatalf("the attempt ended with %v, which is not a fault", err)
	return nil, exectest.Record{}
}

type wantFault struct {
	code    string
	class   job.Class
	message string // a part of the message
}

func (w wantFault) check(t *testing.T, name string, f *job.Fault) {
	t.Helper()
	if f.Code != w.code || f.Class != w.class || !strings.Contains(f.Message, w.message) {
		t.Errorf("%s: %q, class %d: %s\nwant %q, class %d: …%s…", name, f.Code, f.Class, f.Message, w.code, w.class, w.message)
	}
	if strings.Contains(f.Error(), testKey) {
		t.Errorf("%s: the fault shows the key: %v", name, f)
	}
}

// Every fault of the simulated model becomes the right fault of the job, over a real connection.
func TestFaultsOfAnUpstream(t *testing.T) {
	t.Parallel()
	base := serve(t, simmodel.New(simmodel.Options{FaultAfter: 2, RetryAfter: 7 * time.Second}))
	for fault, w := range map[simmodel.Fault]wantFault{
		"400":                   {"upstream_rejected", job.Final, `does not accept the request (400); it says: the simulated model`},
		"401":                   {"upstream_unauthorized", job.Final, "check the variable TEST_KEY"},
		"402":                   {"upstream_quota_exhausted", job.Final, "(402)"},
		"403":                   {"upstream_forbidden", job.Final, "check the variable TEST_KEY"},
		"404":                   {"upstream_not_found", job.Final, "check the model's name and base_url"},
		"408":                   {"upstream_timeout", job.Retryable, "took too long"},
		"409":                   {"upstream_conflict", job.Retryable, "(409)"},
		"413":                   {"upstream_rejected", job.Final, "(413)"},
		"422":                   {"upstream_rejected", job.Final, "(422)"},
		"425":                   {"upstream_conflict", job.Retryable, "(425)"},
		"429":                   {"upstream_rate_limited", job.Wait, "too many requests"},
		"500":                   {"upstream_error", job.Retryable, "failed (500)"},
		"502":                   {"upstream_error", job.Retryable, "(502)"},
		"503":                   {"upstream_unavailable", job.Wait, "not available"},
		"529":                   {"upstream_unavailable", job.Wait, "(529)"},
		simmodel.Close:          {"upstream_disconnected", job.Retryable, "broke off the connection"},
		simmodel.CloseMidStream: {"upstream_disconnected", job.Retryable, "broke off the connection"},
		simmodel.EndMidStream:   {"upstream_incomplete", job.Retryable, "in the middle"},
		simmodel.ErrorMidStream: {"upstream_error", job.Retryable, "told to fail here"},
		simmodel.MalformedSSE:   {"upstream_bad_stream", job.Retryable, "not a chat-completions chunk"},
		simmodel.EnormousLine:   {"upstream_too_large", job.Final, "more than 16 MiB"},
		simmodel.WrongType:      {"upstream_bad_answer", job.Retryable, "text/html"},
	} {
		if testing.Short() && fault == simmodel.EnormousLine {
			continue // the race detector needs a second for its bytes
		}
		f, record := runFailing(t, newExecutor(t, base), fmt.Sprintf(`{"messages":[{"role":"user","content":"x"}],"sim":{"fault":%q}}`, fault))
		w.check(t, string(fault), f)
		if waits := fault == "429" || fault == "503"; waits != (f.RetryAfter == 7*time.Second) {
			t.Errorf("%s: it asks to wait %v", fault, f.RetryAfter)
		}
		if text := record.Text(); strings.HasSuffix(string(fault), "mid-stream") != (text == "You said: ") && fault != simmodel.MalformedSSE && fault != simmodel.EnormousLine {
			t.Errorf("%s: the text before it is %q", fault, text)
		}
	}
}

func TestHangingUpstreamTimesOut(t *testing.T) {
	t.Parallel()
	base := serve(t, simmodel.New(simmodel.Options{Fault: simmodel.Hang}))
	task := exectest.Task([]byte(hello))
	task.Job.Policy.Timeouts.Request = 20 * time.Millisecond
	f := job.FaultOf(exectest.Start(t, newExecutor(t, base), task).Wait())
	wantFault{"upstream_timeout", job.Retryable, "did not answer within 20ms"}.check(t, "hang", f)
}

// unusedAddr returns an address on which nothing can listen until the test ends: the local end
// of a connection.
func unusedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

func TestUnreachableUpstream(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(nil)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for name, c := range map[string]struct {
		base string
		want wantFault
	}{
		"nothing listens":        {"http://" + unusedAddr(t), wantFault{"upstream_unreachable", job.Wait, "refuses connections at 127.0.0.1"}},
		"https on an http port":  {"https" + strings.TrimPrefix(plain.URL, "http"), wantFault{"upstream_tls", job.Final, "http://"}},
		"an unknown certificate": {secure.URL, wantFault{"upstream_tls", job.Final, "not trusted"}},
	} {
		f, _ := runFailing(t, newExecutor(t, c.base), hello)
		c.want.check(t, name, f)
	}
}

// The transport returns errors that a test cannot cause on a real network.
func TestNetworkErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want wantFault
	}{
		"no such host":       {&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, wantFault{"upstream_unreachable", job.Retryable, "there is no host upstream.invalid"}},
		"a name server down": {&net.OpError{Op: "dial", Err: &net.DNSError{IsTimeout: true}}, wantFault{"upstream_unreachable", job.Wait, "cannot be reached"}},
		"no route":           {&net.OpError{Op: "dial", Err: net.UnknownNetworkError("x")}, wantFault{"upstream_unreachable", job.Wait, "cannot be reached"}},
		"a reset":            {&net.OpError{Op: "read", Err: net.UnknownNetworkError("x")}, wantFault{"upstream_disconnected", job.Retryable, "broke off"}},
	} {
		e := mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}}, Transport: failingTransport{c.err}})
		f, _ := runFailing(t, e, hello)
		c.want.check(t, name, f)
	}
}

type failingTransport struct{ err error }

func (b failingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Body.Close()
	return nil, b.err
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed, with the headers %v", r.Header)
	}))
	base := serve(t, http.RedirectHandler(elsewhere, http.StatusTemporaryRedirect))
	f, _ := runFailing(t, newExecutor(t, base), hello)
	wantFault{"upstream_redirect", job.Final, "set base_url"}.check(t, "a redirect", f)
}

func TestErrorsInsideAnAnswer(t *testing.T) {
	t.Parallel()
	for data, w := range map[string]wantFault{
		`{"error":{"message":"slow down","code":429}}`:                       {"upstream_rate_limited", job.Wait, "it says: slow down"},
		`{"error":{"message":"full","code":"503"}}`:                          {"upstream_unavailable", job.Wait, "full"},
		`{"error":{"message":"too long","code":"context_length_exceeded"}}`:  {"upstream_rejected", job.Final, "too long"},
		`{"error":{"message":"who?","type":"authentication_error"}}`:         {"upstream_unauthorized", job.Final, "who?"},
		`{"error":{"message":"busy","type":"overloaded_error","code":null}}`: {"upstream_unavailable", job.Wait, "busy"},
		`{"error":{"message":"broken","type":"server_error"},"choices":[]}`:  {"upstream_error", job.Retryable, "broken"},
		`{"error":"broken"}`: {"upstream_error", job.Retryable, "it says: broken"},
		`{"error":{"message":"` + strings.Repeat("long ", 500) + `"}}`: {"upstream_error", job.Retryable, "long …"},
		`{"error":{"message":"a\u0007\nb <` + testKey + `>"}}`:         {"upstream_error", job.Retryable, "a b <[the key]>"},
		`{"choices":7}`:  {"upstream_bad_stream", job.Retryable, "not a chat-completions chunk"},
		`"choices"`:      {"upstream_bad_stream", job.Retryable, "not a chat-completions chunk"},
		`{"choices":[]}`: {"upstream_incomplete", job.Retryable, "in the middle"},
		`{"choices":[{"index":0,"delta":{"content":"x"}}]}`: {"upstream_incomplete", job.Retryable, "in the middle"},
		`[DONE]`: {"upstream_bad_stream", job.Retryable, "without any content"},
	} {
		f, _ := runFailing(t, newExecutor(t, serve(t, streamHandler(data))), hello)
		w.check(t, data, f)
		if len(f.Message) > 600 {
			t.Errorf("%.60s: the message has %d bytes", data, len(f.Message))
		}
	}
}

func TestEndlessStreamIsCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 16 MiB")
	}
	t.Parallel()
	piece := `{"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("x", 512<<10) + `"}}]}`
	f, record := runFailing(t, newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			fmt.Fprintf(w, "data: %s\n\n", piece)
		}
	})), hello)
	wantFault{"upstream_too_large", job.Final, "more than 16 MiB"}.check(t, "endless", f)
	if n := len(record.Text()); n != job.MaxOutput {
		t.Errorf("the text has %d bytes", n)
	}
}

func TestEndlessUnstreamedAnswerIsCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 16 MiB")
	}
	t.Parallel()
	f, _ := runFailing(t, newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		blank := []byte(strings.Repeat(" ", 1<<20))
		for r.Context().Err() == nil {
			_, _ = w.Write(blank)
		}
	})), hello)
	wantFault{"upstream_too_large", job.Final, "more than 16 MiB"}.check(t, "endless", f)
}
