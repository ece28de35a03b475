package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/client"
)

// newLeanTest returns a leanTransport for a test server, its URL and the number of accepted
// connections.
func newLeanTest(t *testing.T, h http.HandlerFunc) (*leanTransport, string, *atomic.Int32) {
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	l := newLeanTransport(srv.Listener.Addr().String())
	t.Cleanup(func() { l.close(); srv.Close() })
	return l, srv.URL, &conns
}

func TestLeanTransportSpeaksHTTP(t *testing.T) {
	t.Parallel()
	l, url, conns := newLeanTest(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.URL.RequestURI(), " ", r.Header.Get("X-Mine")))
		switch r.URL.Path {
		case "/chunked":
			_ = http.NewResponseController(w).Flush()
		case "/close":
			w.Header().Set("Connection", "close")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = fmt.Fprintf(w, "%d %s", len(body), body)
	})
	for _, tt := range []struct {
		rule, method, path, body string
		want                     string
		conns                    int32
	}{
		{"a request and an answer with a body", "POST", "/a?b=c", "hello", "5 hello", 1},
		{"a request without a body", "GET", "/a", "", "0 ", 1},
		{"an answer in chunks", "POST", "/chunked", "hello", "5 hello", 1},
		{"an answer without a body", "DELETE", "/empty", "", "", 1},
		{"a connection that the server closes is not used again", "GET", "/close", "", "0 ", 1},
		{"the next request opens a new connection", "GET", "/a", "", "0 ", 2},
	} {
		req, err := http.NewRequest(tt.method, url+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.body == "" {
			req.Body = nil
		}
		req.Header.Set("X-Mine", "yes")
		res, err := l.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", tt.rule, err)
		}
		body, _ := io.ReadAll(res.Body)
		if want := tt.method + " " + tt.path + " yes"; string(body) != tt.want || res.Header.Get("X-Seen") != want || conns.Load() != tt.conns {
			t.Errorf("%s: answered %q to %q over %d connections", tt.rule, body, res.Header.Get("X-Seen"), conns.Load())
		}
	}
}

func TestLeanTransportCloseEndsRequests(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	l, url, _ := newLeanTest(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	go func() {
		<-asked
		l.close()
	}()
	for _, rule := range []string{"while it waits for an answer", "for good"} {
		req, _ := http.NewRequest(http.MethodGet, url, nil)
		if _, err := l.RoundTrip(req); err == nil {
			t.Errorf("the connection was not closed %s", rule)
		}
	}
}

func TestDialLeanRefusesHTTPS(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"https://server.test", "http://[::1"} {
		if _, _, err := dialLean(t.Context(), url); err == nil {
			t.Errorf("%s was accepted", url)
		}
	}
}

// BenchmarkSubmit measures the cost of a submit for the bench itself, without sockets.
func BenchmarkSubmit(b *testing.B) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go answerAll(theirs)
	l := newLeanTransport("")
	l.release(&leanConn{Conn: ours, r: bufio.NewReader(ours)})
	c, err := client.New("http://server.test", client.WithTransport(l), client.WithTimeout(0), client.WithRetries(0))
	if err != nil {
		b.Fatal(err)
	}
	o := Defaults()
	s := o.submission()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Submit(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}

// answerAll answers every request on a connection with the same job.
func answerAll(c net.Conn) {
	r := bufio.NewReader(c)
	answer := fmt.Appendf(nil, "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nLocation: /v1/jobs/job_1\r\n"+
		"Vary: Prefer\r\nDate: Thu, 31 Jan 2030 09:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(floorJob), floorJob)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
