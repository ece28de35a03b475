package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// testClient is a client of a detached response. It has sent a request and read "one" of
// the response. The test decides with send what the server writes next.
type testClient struct {
	*testing.T
	conn      net.Conn
	answer    *http.Response
	responses *DetachedResponses
	stop      context.CancelFunc // stops the server
	returned  chan struct{}      // closed when the handler has returned
	send      chan string        // closed at the end of the response
	end       chan func() error  // ends the response with the function's error
	ctx       context.Context    // of the detached response
	log       bytes.Buffer
}

// withDetachedServer calls do with a client of a server in a bubble. The server stops
// when do returns.
func withDetachedServer(t *testing.T, request string, do func(*testClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clientConn, serverConn := net.Pipe()
		c := &testClient{T: t, conn: clientConn, returned: make(chan struct{}), send: make(chan string), end: make(chan func() error)}
		var stopping context.Context
		stopping, c.stop = context.WithCancel(context.Background())
		c.responses = &DetachedResponses{Stopping: stopping, Log: slog.New(slog.NewTextHandler(&c.log, nil))}
		l := singleConnListener{make(chan net.Conn, 1)}
		l.conns <- serverConn
		srv := &http.Server{Handler: api.Wrap(nil, api.WriteProblem, c.serve), BaseContext: func(net.Listener) context.Context { return api.WithDirect(context.Background()) }}
		served := make(chan struct{})
		go func() { _ = srv.Serve(l); close(served) }()
		go func() { _, _ = io.WriteString(clientConn, strings.ReplaceAll(request, "\n", "\r\n")) }()
		answer, err := http.ReadResponse(bufio.NewReader(clientConn), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.answer = answer
		c.expect("one ")
		<-c.returned // and the response is detached
		do(c)
		c.stop()
		_ = clientConn.Close()
		_ = srv.Close()
		<-served
		c.responses.Wait()
	})
}

func (c *testClient) serve(w http.ResponseWriter, r *http.Request) error {
	defer close(c.returned)
	if !c.responses.PrepareDetach(w, r) {
		return errors.New("it may not become a line")
	}
	_, _ = io.WriteString(w, "one ")
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	response, ok := c.responses.Detach(w, r)
	if !ok {
		return errors.New("there is no line")
	}
	c.ctx = response.Context()
	response.Go(func() error { return c.writeMessages(response) })
	return nil
}

// writeMessages writes each text that the test sends.
func (c *testClient) writeMessages(l *DetachedResponse) error {
	for {
		select {
		case text, more := <-c.send:
			if !more {
				return nil
			}
			if _, err := io.WriteString(l, text); err != nil {
				return err
			}
			if err := l.Flush(); err != nil {
				return err
			}
		case end := <-c.end:
			return end()
		case <-l.Context().Done():
			_, err := io.WriteString(l, "goodbye")
			return err
		}
	}
}

// expect reads a text.
func (c *testClient) expect(text string) {
	c.Helper()
	received := make([]byte, len(text))
	if _, err := io.ReadFull(c.answer.Body, received); err != nil || string(received) != text {
		c.Fatalf("received %q, %v; want %q", received, err, text)
	}
}

// rest reads to the end of the response.
func (c *testClient) rest() (string, error) {
	c.Helper()
	text, err := io.ReadAll(c.answer.Body)
	if _, more := c.conn.Read(make([]byte, 1)); more != io.EOF {
		c.Errorf("the connection is still there: %v", more)
	}
	return string(text), err
}

const (
	plainCall = "GET / HTTP/1.1\nHost: x\n\n"
	oldCall   = "GET / HTTP/1.0\nHost: x\n\n"
)

func TestDetachedResponseOutlivesHandler(t *testing.T) {
	t.Parallel()
	for _, request := range []string{plainCall, oldCall} {
		withDetachedServer(t, request, func(c *testClient) {
			c.send <- "two "
			c.expect("two ")
			c.send <- ""
			c.send <- "three"
			close(c.send)
			if text, err := c.rest(); text != "three" || err != nil {
				t.Errorf("%q ends with %q, %v", request, text, err)
			}
			if !c.answer.Close {
				t.Errorf("%q: the client was not told that its connection would be closed", request)
			}
		})
	}
}

// A client that leaves is noticed at once, not at the next write.
func TestDetachedResponseEndsWhenClientLeaves(t *testing.T) {
	t.Parallel()
	withDetachedServer(t, plainCall, func(c *testClient) {
		began := time.Now()
		_ = c.conn.Close()
		<-c.ctx.Done()
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it was noticed after %v", waited)
		}
	})
}

// A pipelined request gets no response and does no harm.
func TestDetachedResponseIgnoresPipelinedRequest(t *testing.T) {
	t.Parallel()
	withDetachedServer(t, plainCall, func(c *testClient) {
		if _, err := io.WriteString(c.conn, strings.Repeat(plainCall, 100)); err != nil {
			t.Fatal(err)
		}
		c.send <- "two"
		close(c.send)
		if text, err := c.rest(); text != "two" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
	})
	withDetachedServer(t, "GET / HTTP/1.1\nHost: x\n\nGET / HTTP/1.1\nHost: x\n\n", func(c *testClient) { // both requests in one packet
		close(c.send)
		if text, err := c.rest(); text != "" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
	})
}

func TestDetachedResponseDropsClientThatSendsTooMuch(t *testing.T) {
	t.Parallel()
	withDetachedServer(t, plainCall, func(c *testClient) {
		go func() { _, _ = c.conn.Write(make([]byte, maxReceived)) }()
		<-c.ctx.Done()
	})
}

func TestWaitReturnsAfterDetachedResponses(t *testing.T) {
	t.Parallel()
	withDetachedServer(t, plainCall, func(c *testClient) {
		gone := make(chan struct{})
		c.stop()
		go func() { c.responses.Wait(); close(gone) }()
		synctest.Wait()
		select {
		case <-gone:
			t.Error("a read deadline was left")
		default:
		}
		if text, err := c.rest(); text != "goodbye" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		<-gone
	})
}

// A client that reads nothing does not keep the server from stopping.
func TestWaitDisconnectsStalledClient(t *testing.T) {
	t.Parallel()
	withDetachedServer(t, plainCall, func(c *testClient) {
		began := time.Now()
		c.stop()
		c.responses.Wait()
		if waited := time.Since(began); waited != closeTimeout {
			t.Errorf("it took %v", waited)
		}
	})
}

// A failed response is visibly incomplete, and a panic does not end the server.
func TestFailedDetachedResponseIsIncomplete(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error":  func() error { return errors.New("late") },
		"defect": func() error { panic("oops") },
	} {
		withDetachedServer(t, plainCall, func(c *testClient) {
			c.send <- "half"
			c.expect("half")
			c.end <- fail
			if text, err := c.rest(); text != "" || err != io.ErrUnexpectedEOF {
				t.Errorf("%s: %q, %v", name, text, err)
			}
			c.stop()
			c.responses.Wait()
			if logged := strings.Contains(c.log.String(), "oops"); logged != (name == "defect") {
				t.Errorf("%s: the log is %q", name, &c.log)
			}
		})
	}
}

func TestPrepareDetachRefusesOtherRequests(t *testing.T) {
	t.Parallel()
	direct := func(method string, body io.Reader) *http.Request {
		return httptest.NewRequest(method, "/", body).WithContext(api.WithDirect(context.Background()))
	}
	second := direct("GET", nil)
	second.ProtoMajor, second.ProtoMinor = 2, 0
	for name, r := range map[string]*http.Request{
		"a request without WithDirect": httptest.NewRequest("GET", "/", nil),
		"a request of HTTP/2":          second,
		"a HEAD request":               direct("HEAD", nil),
		"a request with a body":        direct("GET", strings.NewReader("x")),
	} {
		w := httptest.NewRecorder()
		if new(DetachedResponses).PrepareDetach(w, r) || len(w.Header()) > 0 {
			t.Errorf("%s may be detached: %v", name, w.Header())
		}
	}
	responses := &DetachedResponses{Stopping: context.Background()}
	if _, ok := responses.Detach(httptest.NewRecorder(), direct("GET", nil)); ok {
		t.Error("a recorder without a connection was detached")
	}
	responses.Wait()
	if _, ok := responses.Detach(httptest.NewRecorder(), direct("GET", nil)); ok {
		t.Error("a response was detached after Wait")
	}
}

// singleConnListener is a listener for one connection.
type singleConnListener struct {
	conns chan net.Conn // closed by Close
}

func (l singleConnListener) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l singleConnListener) Close() error   { close(l.conns); return nil }
func (l singleConnListener) Addr() net.Addr { return &net.TCPAddr{} }
