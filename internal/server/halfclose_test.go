package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// halfClose sends a request, closes the sending side, and returns the status and the answer.
func halfClose(t *testing.T, addr, request string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "" // the connection may end without an answer
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// A client that closes its sending side after a write gets its result; after a read it gets
// that or a 4xx. None is a fault of the server.
func TestHalfClosedRequestsAreNoFault(t *testing.T) {
	if testing.Short() {
		t.Skip("sends hundreds of requests")
	}
	t.Parallel()
	s := serve(t, func(c *config.Config) {})
	addr := s.components.listener.Addr().String()
	post := func(path, body string, headers ...string) (int, string) {
		return halfClose(t, addr, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", path, strings.Join(headers, ""), len(body), body))
	}
	for range 20 {
		status, text := post("/v1/jobs", `{"queue":"sim","input":{"duration_ms":3600000}}`)
		var j struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal([]byte(text), &j); err != nil || status != 202 {
			t.Fatalf("a submit: %d %s", status, text)
		}
		for _, call := range []struct {
			path, body string
			want       int
		}{
			{"/v1/jobs/batch", `{"jobs":[{"queue":"sim","input":{}}]}`, 200},
			{"/api/chat", `{"query":"hello"}`, 202},
			{"/v1/queues/sim/resume", "", 200},
			{"/v1/jobs/" + j.ID + "/cancel", "", 0},
		} {
			if status, text := post(call.path, call.body); status != call.want && (call.want != 0 || status != 200 && status != 202) {
				t.Errorf("%s: %d %s", call.path, status, text)
			}
		}
		if status, text := post("/v1/jobs", `{"queue":"sim","input":{"duration_ms":3600000}}`, "Prefer: wait=60\r\n"); status >= 500 {
			t.Errorf("a submit that waits: %d %s", status, text)
		}
		for _, path := range []string{"/v1/jobs", "/v1/jobs/" + j.ID, "/v1/jobs/" + j.ID + "/output", "/v1/jobs/" + j.ID + "/result", "/v1/queues", "/api/conversations", "/healthz"} {
			for _, prefer := range []string{"", "Prefer: wait=60\r\n"} {
				if status, text := halfClose(t, addr, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+prefer+"\r\n"); status >= 500 {
					t.Errorf("%s: %d %s", path, status, text)
				}
			}
		}
	}
	if _, text := s.text("GET", "/metrics", ""); strings.Contains(text, `status="5xx"`) {
		t.Error("the metrics count a fault of the server")
	}
}
