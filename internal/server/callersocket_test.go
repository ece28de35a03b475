package server

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/access"
)

// callerSocket is a WebSocket of one caller.
type callerSocket struct {
	t    *testing.T
	conn *websocket.Conn
}

func (s *keyedServer) dial(path string, headers ...string) *callerSocket {
	s.t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	conn, _, err := websocket.Dial(s.t.Context(), s.URL()+path, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return &callerSocket{s.t, conn}
}

// reply sends a message and returns the type of the first message after it, or the code of the
// error.
func (c *callerSocket) reply(message string) string {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, []byte(message)); err != nil {
		c.t.Fatal(err)
	}
	_, text, err := c.conn.Read(c.t.Context())
	var got struct{ Type, Code string }
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil {
		c.t.Fatal(message, err)
	}
	if got.Type == "error" {
		return got.Code
	}
	return got.Type
}

// Each message of the sockets is checked as its own call is. The table has a row for each message
// and a column for each of [keyedServer.callers] from the one of another tenant on; see
// [accessTable]. - has no socket.
func TestEveryMessageAsksItsCaller(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, filesQueue)
	j := s.jobOf("ann")
	id := j["id"].(string)
	task, _ := s.chatOf("ann")
	_, watch, _ := strings.Cut(j["urls"].(map[string]any)["watch"].(string), "token=")
	callers := s.callers(t)[4:]
	for _, row := range []struct{ path, message, cells string }{
		{"/v1/watch", `{"type":"watch","id":"ID"}`, "44 +-++ + 44 +"},
		{"/v1/watch", `{"type":"cancel","id":"ID"}`, "44 3-++ + 44 +"},
		{"/v1/watch", `{"type":"watch","id":"ID","token":"TOKEN"}`, "++ +-++ + ++ +"},
		{"/v1/watch", `{"type":"cancel","id":"ID","token":"TOKEN"}`, "++ +-++ + ++ +"},
		{"/ws", `{"type":"chat_query","query":"hello"}`, "++ 3-++ + -+ +"},
		{"/ws", `{"type":"watch","task_id":"TASK"}`, "44 4-44 4 -4 +"},
		{"/ws", `{"type":"cancel","task_id":"TASK"}`, "44 3-44 4 -4 +"},
	} {
		cells := strings.ReplaceAll(row.cells, " ", "")
		message := strings.NewReplacer("ID", id, "TOKEN", watch, "TASK", task).Replace(row.message)
		for i, c := range callers {
			if cells[i] == '-' {
				continue
			}
			got := s.dial(row.path, c.headers...).reply(message)
			cell := map[string]byte{"scope_missing": '3', "forbidden": '3', "not_found": '4', "bad_token": '1'}[got]
			if cell == 0 {
				cell = '+'
			}
			if cell != cells[i] {
				t.Errorf("%s answers %s of %s with %s, and the table says %c", row.path, row.message, c.name, got, cells[i])
			}
		}
	}
}

// A revoked key is cut from its open stream and sockets, and no other key is.
func TestRevokedKeyIsCutFromItsStreams(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, nil)
	_, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"delay_s":3600}`, as(s.app, "X-User-ID", "ann")...)
	id := j["id"].(string)
	revoked, ends := s.keys.add(t, "shop", "viewer", nil)
	_, stays := s.keys.add(t, "shop", "viewer", nil)
	var token string
	of, app := s.keys.add(t, "shop", "operator", func(k *access.Key) { k.ActAs = true })
	_, minted := s.call("POST", "/v1/tokens", `{}`, as(app, "X-User-ID", "ann")...)
	token = minted["token"].(string)

	streams := map[string]*http.Response{}
	for name, key := range map[string]string{"revoked": ends, "live": stays, "token": token} {
		streams[name] = s.send("GET", "/v1/jobs/"+id+"/events", "", as(key)...)
		defer streams[name].Body.Close()
	}
	sockets := map[string]*callerSocket{}
	for _, path := range []string{"/v1/watch", "/ws"} {
		sockets["revoked"+path], sockets["live"+path] = s.dial(path, as(ends)...), s.dial(path, as(stays)...)
		sockets["token"+path] = s.dial(path, as(token)...)
	}
	poll := make(chan int, 1)
	go func() {
		res := s.send("GET", "/v1/jobs/"+id, "", as(ends, "Prefer", "wait=60")...)
		defer res.Body.Close()
		poll <- res.StatusCode
	}()
	s.keys.revoke(revoked)
	s.keys.revoke(of)
	for _, name := range []string{"revoked", "token"} {
		lines := bufio.NewScanner(streams[name].Body)
		for lines.Scan() {
		}
		for _, path := range []string{"/v1/watch", "/ws"} {
			if _, _, err := sockets[name+path].conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("%s of %s: %v", path, name, err)
			}
		}
	}
	if status := <-poll; status != 401 {
		t.Error("the long-poll of a revoked key was answered with", status)
	}
	for _, path := range []string{"/v1/watch", "/ws"} {
		ctx, cancel := context.WithCancel(t.Context())
		sockets["live"+path].conn.CloseRead(ctx)
		if err := sockets["live"+path].conn.Ping(ctx); err != nil {
			t.Errorf("%s of a live key: %v", path, err)
		}
		cancel()
	}
}
