package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const longResponse = 20 * writePiece

// withBoundedServer gives use a connection to a server with write deadlines, set by its
// listener (direct) or by its handler. GET /long writes a long response, GET /short one
// word, GET /held one word after an hour.
func withBoundedServer(t *testing.T, direct bool, use func(conn net.Conn, responses *bufio.Reader)) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /long", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, longResponse)) })
		mux.HandleFunc("GET /short", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "word") })
		mux.HandleFunc("GET /held", func(w http.ResponseWriter, r *http.Request) {
			<-time.After(time.Hour)
			_, _ = io.WriteString(w, "word")
		})
		clientConn, serverConn := net.Pipe()
		l := singleConnListener{make(chan net.Conn, 1)}
		l.conns <- serverConn
		srv := &http.Server{Handler: Timeouts{}.BoundResponses(mux)}
		var listener net.Listener = l
		if direct {
			srv.Handler, listener = mux, Timeouts{}.BoundListener(l)
		}
		done := make(chan struct{})
		go func() { _ = srv.Serve(listener); close(done) }()
		use(clientConn, bufio.NewReader(clientConn))
		_ = clientConn.Close()
		_ = srv.Close()
		<-done
		<-time.After(time.Second) // by then net/http has left a client whose body it did not read
		synctest.Wait()
	})
}

func forListenerAndHandler(t *testing.T, test func(t *testing.T, direct bool)) {
	t.Run("by the listener", func(t *testing.T) { test(t, true) })
	t.Run("by the handler", func(t *testing.T) { test(t, false) })
}

func get(conn net.Conn, path string) {
	go func() { _, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n") }()
}

// A response may take any time as long as the client keeps reading it.
func TestSlowReaderGetsWholeResponse(t *testing.T) {
	t.Parallel()
	forListenerAndHandler(t, func(t *testing.T, direct bool) {
		withBoundedServer(t, direct, func(conn net.Conn, responses *bufio.Reader) {
			get(conn, "/long")
			res, err := http.ReadResponse(responses, nil)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			var got int64
			for err == nil {
				<-time.After(defaultTimeout / 3)
				var n int64
				n, err = io.CopyN(io.Discard, res.Body, writePiece)
				got += n
			}
			if took := time.Since(began); err != io.EOF || got != longResponse || took < 20*defaultTimeout/3 {
				t.Errorf("%d bytes in %v, %v", got, took, err)
			}
		})
	})
}

// A client that stops reading loses its connection after the timeout.
func TestStalledReaderIsDisconnected(t *testing.T) {
	t.Parallel()
	forListenerAndHandler(t, func(t *testing.T, direct bool) {
		withBoundedServer(t, direct, func(conn net.Conn, responses *bufio.Reader) {
			get(conn, "/long")
			if _, err := http.ReadResponse(responses, nil); err != nil {
				t.Fatal(err)
			}
			<-time.After(defaultTimeout + time.Second)
			synctest.Wait()
			if n, err := io.Copy(io.Discard, responses); n >= longResponse || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes more, %v", n, err)
			}
		})
	})
}

// No deadline is left between two responses, and a response after a long wait has the
// whole timeout.
func TestWriteDeadlineEndsWithResponse(t *testing.T) {
	t.Parallel()
	forListenerAndHandler(t, func(t *testing.T, direct bool) {
		withBoundedServer(t, direct, func(conn net.Conn, responses *bufio.Reader) {
			for _, path := range []string{"/short", "/long", "/held", "/short", "/held", "/long"} {
				get(conn, path)
				res, err := http.ReadResponse(responses, nil)
				if err != nil {
					t.Fatal(path, err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Fatal(path, err)
				}
				<-time.After(time.Hour)
			}
		})
	})
}

// A hijacker may set a deadline; the next write sets its own.
func TestWriteResetsDeadlineOfHijacker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clientConn, serverConn := net.Pipe()
		l := singleConnListener{make(chan net.Conn, 1)}
		l.conns <- serverConn
		conn, err := Timeouts{}.BoundListener(l).Accept()
		if err != nil {
			t.Fatal(err)
		}
		read := func() { _, _ = io.ReadFull(clientConn, make([]byte, 4)) }
		for _, set := range []func(time.Time) error{conn.SetDeadline, conn.SetWriteDeadline} {
			go read()
			if _, err := io.WriteString(conn, "word"); err != nil {
				t.Fatal(err)
			}
			_ = set(time.Time{})
			began := time.Now()
			if _, err := io.WriteString(conn, "word"); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != defaultTimeout {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			_ = set(time.Now().Add(time.Nanosecond))
			<-time.After(time.Second)
			go read()
			if _, err := io.WriteString(conn, "word"); err != nil {
				t.Error(err)
			}
		}
		_, _ = clientConn.Close(), conn.Close()
	})
}

// The wrapped connection still has CloseWrite.
func TestCloseWriteClosesOneSide(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := Timeouts{}.BoundListener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if _, err := io.Copy(conn, strings.NewReader("x")); err == nil {
		t.Error("written to the closed side")
	}
}

// Over HTTP/2 a client may read one response and stop reading another: each has its own deadline,
// also in a server of this program.
func TestStalledStreamOfHTTP2Ends(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	srv := httptest.NewUnstartedServer(Timeouts{Write: 50 * time.Millisecond}.BoundResponses(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := w.Write(make([]byte, 64<<20)) // more than a client and the network buffer
		ended <- err
	})))
	srv.EnableHTTP2 = true
	srv.Config.BaseContext = func(net.Listener) context.Context { return WithDirect(context.Background()) }
	srv.StartTLS()
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := <-ended; err == nil || res.ProtoMajor != 2 {
		t.Errorf("a response over %s that nobody reads ended with %v", res.Proto, err)
	}
}
