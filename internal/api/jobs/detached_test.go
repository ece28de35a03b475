package jobs

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// singleConnListener is a listener for one connection.
type singleConnListener struct{ conns chan net.Conn } // closed by Close

func (l singleConnListener) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l singleConnListener) Close() error   { close(l.conns); return nil }
func (l singleConnListener) Addr() net.Addr { return &net.TCPAddr{} }

// streamClient is a client that follows the fake's job over a connection of its own.
type streamClient struct {
	conn   net.Conn
	answer *http.Response
	in     *bufio.Reader
	raw    bytes.Buffer       // all bytes that were read
	stop   context.CancelFunc // stops the server
	api    *API
}

// withStream calls do with a client that follows a job, in a bubble. With direct the
// requests are marked as those of the server's own listener, so that the response is
// detached.
func withStream(t *testing.T, f *fake, direct bool, head string, do func(*streamClient)) {
	t.Helper()
	clientConn, serverConn := net.Pipe()
	c := &streamClient{conn: clientConn}
	var stopping context.Context
	stopping, c.stop = context.WithCancel(context.Background())
	c.api = New(Config{Engine: f, Stopping: stopping})
	mux := gate.NewMux()
	c.api.Register(mux)
	g := &gate.Gate{Listen: []string{"127.0.0.1:8080"}, AllowedOrigins: []string{"https://app.example"}, Tokens: testTokens(t)}
	srv := &http.Server{Handler: g.Handler(mux)}
	if direct {
		srv.BaseContext = func(net.Listener) context.Context { return api.WithDirect(context.Background()) }
	}
	l := singleConnListener{make(chan net.Conn, 1)}
	l.conns <- serverConn
	served := make(chan struct{})
	go func() { _ = srv.Serve(api.Timeouts{}.BoundListener(l)); close(served) }()
	go func() { _, _ = io.WriteString(clientConn, strings.ReplaceAll(head, "\n", "\r\n")) }()
	c.in = bufio.NewReader(io.TeeReader(clientConn, &c.raw))
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.answer = answer
	do(c)
	c.stop()
	_ = clientConn.Close()
	_ = srv.Close()
	<-served
	c.api.Wait()
	synctest.Wait()
}

func testTokens(t *testing.T) *gate.Tokens {
	t.Helper()
	tokens, err := gate.NewTokens(make([]byte, gate.TokenKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

const eventsHead = "GET " + jobPath + "/events HTTP/1.1\nHost: 127.0.0.1:8080\nX-Request-ID: it\n\n"

// readUntil reads up to a text.
func (c *streamClient) readUntil(t *testing.T, text string) {
	t.Helper()
	for b := make([]byte, 1<<10); !strings.Contains(c.raw.String(), text); {
		if _, err := c.answer.Body.Read(b); err != nil {
			t.Fatalf("%v, after %q", err, &c.raw)
		}
	}
}

// scriptEvents gives the fake a job that has output in each update, and ends.
func scriptEvents(f *fake) *scriptedWatcher {
	f.snap.Job = jobAt(job.Succeeded, 3)
	watch := &scriptedWatcher{updates: []engine.Update{
		{Job: new(jobAt(job.Running, 1)), Entries: []job.Entry{entry(1, job.KindText, "one ")}},
		{Job: new(jobAt(job.Running, 2)), Entries: []job.Entry{entry(2, job.KindText, strings.Repeat("two ", 20<<10))}},
		{Job: new(jobAt(job.Succeeded, 3)), Entries: []job.Entry{entry(3, job.KindText, "three")}},
	}}
	f.watch = func(int64) stream.Watcher { return watch }
	return watch
}

// A detached stream has the same bytes as one of net/http, except that it closes the
// connection.
func TestDetachedStreamMatchesHandlerStream(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"HTTP/1.1":             eventsHead,
		"HTTP/1.0":             strings.Replace(eventsHead, "HTTP/1.1", "HTTP/1.0", 1),
		"a page of the server": strings.Replace(eventsHead, "\nX-", "\nOrigin: http://127.0.0.1:8080\nX-", 1),
		"a page of an allowed origin": strings.Replace(eventsHead, "\nX-", "\nOrigin: https://app.example\nAuthorization: Bearer "+
			string(testTokens(t).Seal(nil, gate.Grant{Owner: job.Owner{User: "ann"}, Job: testJob().ID, Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}))+"\nX-", 1),
	} {
		raw := map[bool]string{}
		for _, direct := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				watch := scriptEvents(f)
				withStream(t, f, direct, head, func(c *streamClient) {
					if _, err := io.ReadAll(c.answer.Body); err != nil {
						t.Error(err)
					}
					raw[direct] = c.raw.String()
				})
				if !watch.isClosed() {
					t.Error("the watch was left open")
				}
			})
		}
		want := strings.Replace(raw[false], "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
		if got := sortHeaders(raw[true]); got != sortHeaders(want) {
			t.Errorf("%s:\na line  %.1000q\nnot one %.1000q", name, got, sortHeaders(want))
		}
	}
}

// sortHeaders sorts the header lines of a response, because net/http writes its own last.
func sortHeaders(answer string) string {
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n\n" + body
}

// A response that is complete already keeps the connection open for the next request.
func TestEndedJobIsNotDetached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.watch = func(int64) stream.Watcher { return &scriptedWatcher{updates: updatesOf(jobAt(job.Succeeded, 0))} }
		withStream(t, f, true, eventsHead+eventsHead, func(c *streamClient) {
			for again := range 2 {
				if again > 0 {
					c.answer, _ = http.ReadResponse(c.in, nil)
				}
				if text, err := io.ReadAll(c.answer.Body); err != nil || c.answer.Close || !strings.Contains(string(text), "event: done") {
					t.Errorf("%q, %v, closed: %v", text, err, c.answer.Close)
				}
			}
		})
	})
}

// A client that leaves ends the watch at once, before there is an event to send.
func TestDetachedStreamEndsWhenReaderLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		watch := &scriptedWatcher{updates: updatesOf(testJob())}
		f.watch = func(int64) stream.Watcher { return watch }
		withStream(t, f, true, eventsHead, func(c *streamClient) {
			c.readUntil(t, "event: snapshot")
			began := time.Now()
			_ = c.conn.Close()
			synctest.Wait()
			if !watch.isClosed() || time.Since(began) > 0 {
				t.Error("the watch was left open")
			}
		})
	})
}

// A silent detached stream sends a heartbeat every 15 seconds, and asks the client to
// reconnect when the server stops.
func TestDetachedStreamSendsHeartbeatsUntilStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		watch := &scriptedWatcher{updates: updatesOf(testJob())}
		f.watch = func(int64) stream.Watcher { return watch }
		withStream(t, f, true, eventsHead, func(c *streamClient) {
			began := time.Now()
			c.readUntil(t, "\n:\n\n\r\n3\r\n:\n\n")
			if waited := time.Since(began); waited != 2*stream.Heartbeat {
				t.Errorf("two heartbeats took %v", waited)
			}
			c.stop()
			rest, err := io.ReadAll(c.answer.Body)
			if err != nil || !strings.HasPrefix(string(rest), "retry: 1000\n:") {
				t.Errorf("%q, %v", rest, err)
			}
			c.api.Wait()
			if !watch.isClosed() {
				t.Error("the watch was left open")
			}
		})
	})
}

// A detached stream drops a client that reads nothing for 30 seconds.
func TestDetachedStreamDropsSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		watch := scriptEvents(f)
		withStream(t, f, true, eventsHead, func(c *streamClient) {
			c.readUntil(t, "event: output")
			time.Sleep(writeTime - 1) // time of the bubble
			synctest.Wait()
			if watch.isClosed() {
				t.Error("dropped too early")
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if !watch.isClosed() {
				t.Error("the watch was left open")
			}
			if rest, err := io.ReadAll(c.answer.Body); err != io.ErrUnexpectedEOF {
				t.Errorf("it ends with %q, %v", rest, err)
			}
		})
	})
}
