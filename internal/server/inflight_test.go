package server

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// Whatever way a request or a message ends, the budget of bodies in flight gets back what it
// held.
func TestBudgetOfBodiesReturnsToZero(t *testing.T) {
	if testing.Short() {
		t.Skip("sends hundreds of requests")
	}
	t.Parallel()
	s := serve(t, nil)
	text := strings.Repeat("x", 100<<10)
	json, form := `{"queue":"sim","input":"`+text, "--b\r\nContent-Disposition: form-data; name=job\r\n\r\n"+`{"queue":"sim","input":"`+text
	bodies := []string{
		"Content-Length: 200000\r\n\r\n" + json,
		"Content-Length: 200000\r\n\r\n" + form,
		"Content-Length: 999999999999\r\n\r\n" + json,
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(json)+2, json+`"}`),
		"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + json,
		"Transfer-Encoding: chunked\r\n\r\nno length\r\n" + json,
		fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(json), json),
	}
	for n, path := range []string{"/v1/jobs", "/v1/jobs/batch", "/v1/jobs/cancel", "/v1/tokens", "/api/chat", "/api/heartbeat"} {
		for _, kind := range []string{"application/json", "multipart/form-data; boundary=b"} {
			for _, body := range bodies {
				for _, end := range []func(*net.TCPConn){
					func(c *net.TCPConn) { _ = c.Close() },
					func(c *net.TCPConn) { _ = c.CloseWrite() },
					func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
				} {
					conn, err := net.Dial("tcp", s.components.listener.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = conn.Close() })
					_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nX-User-ID: user%d\r\nContent-Type: %s\r\n%s", path, n, kind, body)
					end(conn.(*net.TCPConn))
				}
			}
		}
	}
	for _, path := range []string{"/ws", "/v1/watch"} {
		for _, size := range []int{10, 50 << 10, 1 << 20} {
			for _, whole := range []bool{true, false} {
				conn, _, err := websocket.Dial(t.Context(), s.URL()+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if w, err := conn.Writer(t.Context(), websocket.MessageText); err == nil {
					_, _ = io.WriteString(w, strings.Repeat("x", size))
					if whole {
						_ = w.Close()
					}
				}
				_ = conn.CloseNow()
			}
		}
	}
	for held := int64(1); held > 0; held, _ = s.components.gate.Bodies.InFlight() {
		s.text("GET", "/healthz", "")
	}
	s.quit()
	if held, _ := s.components.gate.Bodies.InFlight(); held != 0 {
		t.Errorf("%d bytes stay held", held)
	}
}
