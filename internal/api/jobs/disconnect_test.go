package jobs

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
)

// serve serves the API on loopback. over gets a value when the handler of a request has
// returned.
func serve(t *testing.T, f *fake) (addr string, over chan string) {
	t.Helper()
	over = make(chan string, 10)
	h := f.handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { over <- r.Method }()
		r.Host = "127.0.0.1"
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), over
}

// A client that leaves during the body of a submit stores nothing.
func TestClientLeavesDuringSubmit(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	addr, over := serve(t, f)
	const body = `{"queue":"sim","input":{"a":1}}`
	for sent := range len(body) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:sent])
		_ = conn.Close()
		<-over
	}
	if len(f.calls) > 0 {
		t.Errorf("the engine was called: %v", f.calls)
	}
}

// A client that leaves during a long-poll ends the wait and does not affect the job.
func TestClientLeavesDuringLongPoll(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		f := newFake(t)
		holding, ended := make(chan struct{}), make(chan struct{})
		f.waits = func(ctx context.Context) error {
			close(holding)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}
		addr, over := serve(t, f)
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		path, body := jobPath, ""
		if method == "POST" {
			path, body = "/v1/jobs", `{"queue":"sim","input":1}`
		}
		_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
		<-holding
		_ = conn.Close()
		<-ended
		<-over
		if len(f.calls) != 1 {
			t.Errorf("%s: %v", method, f.calls)
		}
	}
}

// A client that leaves a stream closes its watch.
func TestClientLeavesStream(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	watch := &scriptedWatcher{updates: []engine.Update{{Job: new(testJob())}}}
	f.watch = func(int64) stream.Watcher { return watch }
	addr, over := serve(t, f)
	ctx, disconnect := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+jobPath+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("event: snapshot\n"))
	if _, err := io.ReadFull(res.Body, first); err != nil || !strings.HasPrefix(string(first), "event: snapshot") {
		t.Fatalf("%q, %v", first, err)
	}
	disconnect()
	_ = res.Body.Close()
	<-over
	if !watch.isClosed() {
		t.Error("the watch was left open")
	}
}
