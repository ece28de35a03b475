package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// raw sends the text of a request to an address and returns the status of the answer.
func raw(t *testing.T, addr, request string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// A web page whose own name resolves to the server reaches none of its addresses, as it is
// started in a container: beyond loopback and without public_url.
func TestForeignNameReachesNoListener(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *config.Config) {
		c.Listen, c.Insecure, c.Metrics.Listen, c.AllowedHosts = "0.0.0.0:0", true, "127.0.0.1:0", []string{"jobs.example.com"}
	})
	own := fmt.Sprintf("127.0.0.1:%d", s.components.listener.Addr().(*net.TCPAddr).Port)
	metrics := s.components.instruments.listener.Addr().String()
	for _, tt := range []struct {
		addr, path, host string
		want             int
	}{
		{own, "/v1/jobs", "evil.example", 403},
		{own, "/v1/jobs", "127.0.0.1.evil.example:8080", 403},
		{own, "/v1/jobs", "10.0.0.1:8080", 200},
		{own, "/v1/jobs", "meanwhile", 200},
		{own, "/v1/jobs", "jobs.example.com", 200},
		{own, "/healthz", "evil.example", 200},
		{own, "/readyz", "evil.example", 200},
		{metrics, "/metrics", "evil.example", 403},
		{metrics, "/metrics", "jobs.example.com", 200},
		{metrics, "/metrics", "127.0.0.1", 200},
	} {
		if status, text := raw(t, tt.addr, "GET "+tt.path+" HTTP/1.1\nConnection: close\nHost: "+tt.host+"\n\n"); status != tt.want {
			t.Errorf("%s as %s: %d %.200s", tt.path, tt.host, status, text)
		}
	}
	// A name of the public DNS passes by its own page's origin.
	if status, _ := raw(t, own, "POST /v1/jobs HTTP/1.1\nHost: evil.example:8080\nOrigin: http://evil.example:8080\nContent-Length: 2\n\n{}"); status != 403 {
		t.Errorf("a write as evil.example: %d", status)
	}
}

// Plain health checks send HTTP/1.0, with or without a Host.
func TestHealthAnswersPlainChecks(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	addr := s.components.listener.Addr().String()
	for _, path := range []string{"/healthz", "/readyz"} {
		for _, request := range []string{"GET " + path + " HTTP/1.0\n\n", "GET " + path + " HTTP/1.0\nHost: lb.example\n\n", "GET " + path + " HTTP/1.1\nHost: 10.1.2.3\nConnection: close\n\n", "HEAD " + path + " HTTP/1.0\n\n"} {
			if status, text := raw(t, addr, request); status != 200 {
				t.Errorf("%q: %d %s", request, status, text)
			}
		}
	}
	if status, _ := raw(t, addr, "GET /v1/jobs HTTP/1.0\n\n"); status != 403 {
		t.Errorf("jobs without a Host: %d", status)
	}
}

// Two programs that read such a request may take different values.
func TestAmbiguousRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	addr := s.components.listener.Addr().String()
	for _, headers := range []string{
		"Host: localhost\nHost: localhost\n",
		"Host: localhost\nX-User-ID: ann\nX-User-ID: bob\n",
		"Host: localhost\nIdempotency-Key: a\nIdempotency-Key: a\n",
		"Host: localhost\nAuthorization: Bearer a\nAuthorization: Bearer b\n",
		"Host: localhost\nContent-Type: application/json\nContent-Type: text/plain\n",
		"Host: localhost\nContent-Length: 3\n",
		"Host: localhost\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n",
	} {
		request := "POST /v1/jobs HTTP/1.1\nConnection: close\n" + headers + "Content-Length: 2\n\n{}"
		if status, text := raw(t, addr, request); status != 400 && status != 501 {
			t.Errorf("%q: %d %s", headers, status, text)
		}
	}
}
