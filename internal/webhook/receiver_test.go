package webhook

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func readAll(t *testing.T, r *http.Request) []byte {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return body
}

// rawReceiver answers each connection by a function, once its request has arrived.
func rawReceiver(t *testing.T, answer func(net.Conn)) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					answer(conn)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// untilClosed writes a text again and again, until the other side has closed the connection.
func untilClosed(conn net.Conn, text string) {
	for {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

// untilRead returns when the other side has closed the connection.
func untilRead(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// Once the status is there, nothing that a receiver does with its body changes anything.
func TestReceiversThatAnswerBadly(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, answer := range map[string]func(net.Conn){
		"1 GiB": func(c net.Conn) {
			fmt.Fprint(c, ok+"Content-Length: 1073741824\r\n\r\n")
			untilClosed(c, strings.Repeat("a", 1<<16))
		},
		"an endless body":      func(c net.Conn) { fmt.Fprint(c, ok+"\r\n"); untilClosed(c, strings.Repeat("a", 1<<16)) },
		"endless chunks":       func(c net.Conn) { fmt.Fprint(c, ok+"Transfer-Encoding: chunked\r\n\r\n"); untilClosed(c, "1\r\na\r\n") },
		"a body that hangs":    func(c net.Conn) { fmt.Fprint(c, ok+"Content-Length: 10\r\n\r\nabc"); untilRead(c) },
		"a body that is cut":   func(c net.Conn) { fmt.Fprint(c, ok+"Content-Length: 10\r\n\r\nabc") },
		"a body that is wrong": func(c net.Conn) { fmt.Fprint(c, ok+"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n") },
		"a bomb of gzip":       func(c net.Conn) { fmt.Fprint(c, ok+"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nno gzip..") },
		"one more answer":      func(c net.Conn) { fmt.Fprint(c, ok+"Content-Length: 0\r\n\r\n"+ok+"\r\n") },
		"informational ones":   func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\n"+ok+"Content-Length: 0\r\n\r\n") },
		"a switch":             func(c net.Conn) { fmt.Fprint(c, ok+"Connection: close\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := newExecutor(t, nil)
			if f, r := attempt(t, e, deliveryTo(rawReceiver(t, answer))); f != nil || len(r.Results) != 1 {
				t.Errorf("%+v, %+v", f, r)
			}
		})
	}
}

func TestReceiversThatFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(net.Conn)
		code   string
	}{
		"silent":         {untilRead, codeTimeout},
		"slow headers":   {func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX-Slow: "); untilRead(c) }, codeTimeout},
		"closes at once": {func(net.Conn) {}, codeDisconnected},
		"is no server":   {func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-OpenSSH_9.9\r\n") }, codeDisconnected},
		"endless headers": {func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			untilClosed(c, "X-A: "+strings.Repeat("a", 1<<10)+"\r\n")
		}, codeDisconnected},
		"one endless header": {func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX-A: ")
			untilClosed(c, strings.Repeat("a", 1<<10))
		}, codeDisconnected},
		"endless hints": {func(c net.Conn) { untilClosed(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") }, codeDisconnected},
		"a switch": {func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n")
			untilRead(c)
		}, codeStatus},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := newExecutor(t, func(cfg *Config) {
				if c.code == codeTimeout {
					cfg.Timeout = 50 * time.Millisecond
				}
			})
			f, _ := attempt(t, e, deliveryTo(rawReceiver(t, c.answer)))
			if f == nil || f.Code != c.code || f.Class != job.Retryable {
				t.Errorf("%+v, want %s", f, c.code)
			}
		})
	}
}

func TestReceiversWithBadTLS(t *testing.T) {
	t.Parallel()
	e, _ := newExecutor(t, nil)
	quiet := log.New(io.Discard, "", 0)
	unknown := httptest.NewUnstartedServer(http.NotFoundHandler())
	unknown.Config.ErrorLog = quiet
	unknown.StartTLS()
	t.Cleanup(unknown.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.Config.ErrorLog = quiet
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	t.Cleanup(old.Close)
	for name, url := range map[string]string{
		"a certificate that is not trusted": unknown.URL,
		"plain HTTP":                        strings.Replace(plain.URL, "http:", "https:", 1),
		"an old version":                    old.URL,
	} {
		if f, _ := attempt(t, e, deliveryTo(url)); f == nil || f.Code != codeTLS || f.Class != job.Retryable {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// A receiver may close an idle connection just when a delivery is sent on it. The delivery is sent
// again on another one.
func TestConnectionThatWasClosedMeanwhile(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	url := rawReceiver(t, func(c net.Conn) {
		connections.Add(1)
		fmt.Fprint(c, "HTTP/1.1 204 No Content\r\n\r\n")
		// The connection ends while the next request is on its way: it is never answered.
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_ = r.Body.Close()
		}
	})
	e, _ := newExecutor(t, nil)
	for i := range 5 {
		if f, _ := attempt(t, e, deliveryTo(url)); f != nil {
			t.Fatalf("delivery %d: %+v", i, f)
		}
	}
	if n := connections.Load(); n != 5 {
		t.Errorf("%d connections were answered", n)
	}
}

// Deliveries that follow each other use one connection.
func TestConnectionIsKept(t *testing.T) {
	t.Parallel()
	connections := map[string]bool{}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		_, _ = w.Write([]byte("thanks"))
	}))
	defer receiver.Close()
	e, _ := newExecutor(t, nil)
	for range 5 {
		if f, _ := attempt(t, e, deliveryTo(receiver.URL)); f != nil {
			t.Fatal(f)
		}
	}
	if len(connections) != 1 {
		t.Errorf("%d connections were made", len(connections))
	}
}
