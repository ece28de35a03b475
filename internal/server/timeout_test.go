package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

// waiting starts a server with short timeouts for its clients.
func waiting(t *testing.T, change func(*config.Config), how api.Timeouts) *testServer {
	t.Helper()
	return serveWith(t, change, func(s *Server) error {
		s.components.gate.Timeouts = how
		return nil
	})
}

// The connection of a client that never reads is closed, whatever the response is.
func TestClientThatNeverReadsIsDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills the buffers of a connection")
	}
	s := waiting(t, nil, api.Timeouts{Write: 100 * time.Millisecond})
	for range 20 {
		s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
	}
	embedded := httptest.NewServer(s.Handler(nil))
	defer embedded.Close()
	for _, c := range []struct{ server, path string }{
		{s.URL(), "/v1/jobs"}, {s.URL(), "/healthz"}, {s.URL(), "/v1/nothing"}, {s.URL(), "/v1/nothing//"}, {s.URL(), "/openapi.json"},
		{embedded.URL, "/v1/jobs"}, {embedded.URL, "/openapi.json"},
	} {
		addr := strings.TrimPrefix(c.server, "http://")
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		ask := strings.Repeat("GET "+c.path+" HTTP/1.1\r\nHost: "+addr+"\r\n\r\n", 100)
		for err == nil {
			_, err = io.WriteString(conn, ask)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s%s: still there after a minute", c.server, c.path)
		}
		_ = conn.Close()
	}
}

// While the server itself delays an upload, the timeout of its body does not run.
func TestUploadPausedByTheServerDoesNotTimeOut(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for a timeout")
	}
	s := waiting(t, func(c *config.Config) {
		q := config.Defaults(config.Process)
		q.Process.Command, q.Process.Env, q.Concurrency = []string{"sleep", "1"}, []string{"PATH"}, 100
		c.Queues = maps.Clone(c.Queues)
		c.Queues["slow"] = q
	}, api.Timeouts{Body: 500 * time.Millisecond})
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			size := 30000 + 2900*i // several times the bytes that extend an upload's time
			if answer := s.uploadPaused(size); !strings.HasPrefix(answer, "200 ") || !strings.Contains(answer, `"status":"succeeded"`) {
				t.Errorf("%d bytes: %s", size, answer)
			}
		})
	}
	all.Wait()
}

// uploadPaused submits a file of that size in one write and waits for the end of its job.
func (s *testServer) uploadPaused(size int) (answer string) {
	const edge = "xxBOUNDxx"
	body := "--" + edge + "\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{\"queue\":\"slow\",\"input\":null}\r\n--" + edge +
		"\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n" + strings.Repeat("y", size) + "\r\n--" + edge + "--\r\n"
	addr := strings.TrimPrefix(s.URL(), "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	var request bytes.Buffer
	fmt.Fprintf(&request, "POST /v1/jobs HTTP/1.1\r\nHost: %s\r\nPrefer: wait=45\r\nContent-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n%s", addr, edge, len(body), body)
	if _, err := conn.Write(request.Bytes()); err != nil {
		return err.Error()
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(res.Body)
	return fmt.Sprint(res.Status, " ", string(text), err)
}
