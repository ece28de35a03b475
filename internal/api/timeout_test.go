package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

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

// withTimeoutServer gives use a connection to a server with three calls. POST /read reads
// a body and responds an hour later. GET /held responds an hour later. GET /stream begins
// its response and ends it an hour later.
func withTimeoutServer(t *testing.T, use func(conn net.Conn, responses *bufio.Reader)) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		hold := func(w http.ResponseWriter, r *http.Request) error {
			select {
			case <-time.After(time.Hour):
				WriteJSON(w, 200, "done")
				return nil
			case <-r.Context().Done():
				return errors.New("the request's context ended")
			}
		}
		mux.Handle("GET /held", Wrap(nil, WriteProblem, hold))
		mux.Handle("POST /read", Wrap(nil, WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
			if _, err := ReadBody(r, 1000); err != nil {
				return err
			}
			return hold(w, r)
		}))
		mux.Handle("GET /stream", Wrap(nil, WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
			if err := http.NewResponseController(w).Flush(); err != nil {
				return err
			}
			return hold(w, r)
		}))
		clientConn, serverConn := net.Pipe()
		l := singleConnListener{make(chan net.Conn, 1)}
		l.conns <- serverConn
		HandleUnknown(mux)
		mux.HandleFunc("POST /refused", func(w http.ResponseWriter, r *http.Request) { WriteProblem(w, job.Errorf(job.Forbidden, "not here")) })
		srv := &http.Server{Handler: Timeouts{}.BoundResponses(Timeouts{}.BoundBodies(nil, mux))}
		done := make(chan struct{})
		go func() { _ = srv.Serve(l); close(done) }()
		use(clientConn, bufio.NewReader(clientConn))
		_ = clientConn.Close()
		_ = srv.Close()
		<-done
		<-time.After(time.Second) // by then net/http has left a client whose body it did not read
		synctest.Wait()
	})
}

// sendSlowly sends the head of a request and then one byte a minute, until the connection
// breaks.
func sendSlowly(conn net.Conn, head string) {
	_, err := io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n"))
	for err == nil {
		<-time.After(time.Minute) // time of the bubble
		_, err = io.WriteString(conn, "x")
	}
}

func TestSlowBodyIsRefusedAtDeadline(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		head string
		want int
	}{
		"read with a length":    {"POST /read HTTP/1.1\nHost: 127.0.0.1:8080\nContent-Length: 500\n\n", 408},
		"read without a length": {"POST /read HTTP/1.1\nHost: 127.0.0.1:8080\nTransfer-Encoding: chunked\n\n", 408},
		"refused unread":        {"POST /read HTTP/1.1\nHost: 127.0.0.1:8080\nContent-Length: 5000\n\n", 413},
		"for an unknown path":   {"POST /nothing HTTP/1.1\nHost: 127.0.0.1:8080\nContent-Length: 500\n\n", 404},
		"refused at the gate":   {"POST /refused HTTP/1.1\nHost: elsewhere\nContent-Length: 500\n\n", 403},
	} {
		t.Run(name, func(t *testing.T) {
			withTimeoutServer(t, func(conn net.Conn, responses *bufio.Reader) {
				dripped := make(chan struct{})
				go func() { sendSlowly(conn, tt.head); close(dripped) }()
				defer func() { _ = conn.Close(); <-dripped }()
				began := time.Now()
				res, err := http.ReadResponse(responses, nil)
				if err != nil || res.StatusCode != tt.want {
					t.Fatalf("answered with %v, %v", res, err)
				}
				if _, err := io.Copy(io.Discard, responses); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(began); waited > defaultTimeout+time.Second {
					t.Errorf("the connection stayed open for %v", waited)
				}
			})
		})
	}
}

// The deadline of a body does not affect its response or the next request on the
// connection.
func TestBodyDeadlineDoesNotBoundResponse(t *testing.T) {
	t.Parallel()
	const request = " HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 2\r\n\r\n{}"
	withTimeoutServer(t, func(conn net.Conn, responses *bufio.Reader) {
		for _, call := range []string{"POST /read", "GET /held", "GET /stream", "POST /read"} {
			go func() { _, _ = io.WriteString(conn, call+request) }()
			res, err := http.ReadResponse(responses, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); res.StatusCode != 200 || err != nil {
				t.Fatalf("%s is answered with %d %s, %v", call, res.StatusCode, body, err)
			}
		}
	})
}

func TestTimeoutErrorNamesConfiguredTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		handler := Timeouts{Body: 5 * time.Second}.BoundBodies(nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := ReadBody(r, 1000)
			errs <- err
		}))
		client, server := net.Pipe()
		l := singleConnListener{make(chan net.Conn, 1)}
		l.conns <- server
		srv := &http.Server{Handler: handler}
		done := make(chan struct{})
		go func() { _ = srv.Serve(l); close(done) }()
		go func() { _, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n") }()
		p := ProblemOf(<-errs)
		if p.Code != RequestTimeout || p.Detail != "the body did not arrive within 5s" {
			t.Errorf("the problem is %+v", p)
		}
		_ = client.Close()
		_ = srv.Close()
		<-done
		<-time.After(time.Second) // by then net/http has left a client whose body it did not read
		synctest.Wait()
	})
}
