package server

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// mint makes a token for a user.
func (s *testServer) mint(user, body string) (token string, answer map[string]any) {
	s.t.Helper()
	status, answer := s.call("POST", "/v1/tokens", body, "X-User-ID", user)
	if status != 201 {
		s.t.Fatal(status, answer)
	}
	return answer["token"].(string), answer
}

// A page of another origin asks, watches, cancels and lists with its user's token, and renews it.
func TestPageOfAnotherOriginUsesAUsersToken(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	t.Parallel()
	s := serve(t, func(c *config.Config) { c.AllowedOrigins = []string{"https://app.example"} })
	token, minted := s.mint("ann", `{"ttl_s": 60, "renewable_s": 3600}`)
	if !strings.HasPrefix(token, "ut_") || minted["user"] != "ann" {
		t.Fatal(minted)
	}
	page := func(method, path, body string) (int, map[string]any) {
		t.Helper()
		return s.call(method, path, body, "Origin", "https://app.example", "Authorization", "Bearer "+token)
	}
	status, task := page("POST", "/api/chat", `{"query":"hello","conversation_id":"conv123"}`)
	if status != 202 || task["conversation_id"] != "conv123" {
		t.Fatal(status, task)
	}
	s.done(task["task_id"].(string), "ann")
	status, submitted := page("POST", "/v1/jobs", `{"queue":"sim","input":{"duration_ms":60000},"key":"another","priority":1}`)
	if status != 202 || submitted["key"] != "ann" || submitted["priority"] != 5.0 {
		t.Fatal("the job takes turns under the user", status, submitted)
	}
	if status, list := page("GET", "/v1/jobs", ""); status != 200 || len(list["data"].([]any)) != 2 {
		t.Error(status, list)
	}
	if status, j := page("POST", "/v1/jobs/"+submitted["id"].(string)+"/cancel", ""); status/100 != 2 {
		t.Error(status, j)
	}
	if status, list := page("GET", "/api/conversations", ""); status != 200 || len(list["conversations"].([]any)) != 1 {
		t.Error(status, list)
	}

	status, renewed := page("POST", "/v1/tokens", `{"ttl_s": 7200}`)
	if status != 201 || renewed["user"] != "ann" || renewed["renewable_until"] != minted["renewable_until"] || renewed["expires_at"] != minted["renewable_until"] {
		t.Errorf("renewed: %d %v, from %v", status, renewed, minted)
	}
	for _, body := range []string{`{"renewable_s": 7200}`, `{"queues": []}`, `{"ttl_s": 0}`, `{"ttl_s": 1e9}`, `{"user": "bob"}`} {
		if status, answer := page("POST", "/v1/tokens", body); status != 400 {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
}

func TestUsersTokenNamesQueues(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	token, _ := s.mint("ann", `{"queues": ["chat"]}`)
	status, answer := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, "Authorization", "Bearer "+token)
	if status != 403 {
		t.Error(status, answer)
	}
	if status, answer = s.call("POST", "/v1/jobs", `{"queue":"chat","input":{"messages":[{"role":"user","content":"q"}]}}`, "Authorization", "Bearer "+token); status != 202 {
		t.Error(status, answer)
	}
	if status, answer = s.call("POST", "/v1/tokens", `{"queues": ["nosuch"]}`); status != 404 || answer["code"] != "unknown_queue" {
		t.Error(status, answer)
	}
}

// An expired token asks nothing more on the socket that it opened, until the page sends another.
func TestSocketRenewsItsToken(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a token to expire")
	}
	t.Parallel()
	s := serve(t, nil)
	token, minted := s.mint("ann", `{"ttl_s": 1}`)
	conn, _, err := websocket.Dial(t.Context(), s.URL()+"/ws?token="+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	say := func(message string) (heard map[string]any) {
		t.Helper()
		err := conn.Write(t.Context(), websocket.MessageText, []byte(message))
		if err == nil {
			_, message, readErr := conn.Read(t.Context())
			err = errors.Join(readErr, json.Unmarshal(message, &heard))
		}
		if err != nil {
			t.Fatal(err)
		}
		return heard
	}
	expires, _ := time.Parse(time.RFC3339, minted["expires_at"].(string))
	<-time.After(time.Until(expires) + 10*time.Millisecond)
	const ask = `{"type":"chat_query","query":"q"}`
	if got := say(ask); got["type"] != "error" || got["code"] != "bad_token" {
		t.Fatal(got)
	}
	bobs, _ := s.mint("bob", `{}`)
	if got := say(`{"type":"token","token":"` + bobs + `"}`); got["code"] != "forbidden" {
		t.Fatal(got)
	}
	again, _ := s.mint("ann", `{}`)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"token","token":"`+again+`"}`)); err != nil {
		t.Fatal(err)
	}
	if got := say(ask); got["type"] != "accepted" {
		t.Fatal(got)
	}
}

// A token whose key is forgotten, because it was stolen, asks nothing more on an open socket.
func TestForgottenKeyRevokesOpenSockets(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	token, _ := s.mint("ann", `{}`)
	conn, _, err := websocket.Dial(t.Context(), s.URL()+"/ws?token="+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	for _, forget := range []bool{false, true} {
		if _, err := RotateTokenKey(t.Context(), s.cfg, forget); err != nil {
			t.Fatal(err)
		}
		s.loadKeys()
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"cancel","task_id":"none"}`)); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{false: "not_found", true: "bad_token"}[forget]
		if _, heard, err := conn.Read(t.Context()); err != nil || !strings.Contains(string(heard), `"code":"`+want+`"`) {
			t.Errorf("forget %v: %s %v", forget, heard, err)
		}
	}
}

// A new key logs nobody out, and a server uses it without a restart. The earlier keys are
// forgotten only where that is asked for, or after a few more.
func TestNewTokenKeyLogsNobodyOut(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	works := func(token string) bool {
		t.Helper()
		status, _ := s.call("GET", "/api/conversations", "", "Authorization", "Bearer "+token)
		return status == 200
	}
	keyOf := func(token string) string { id, _, _ := strings.Cut(token, "."); return id }
	rotate := func(forget bool) {
		t.Helper()
		if _, err := RotateTokenKey(t.Context(), s.cfg, forget); err != nil {
			t.Fatal(err)
		}
		s.loadKeys()
	}
	first, _ := s.mint("ann", `{}`)
	rotate(false)
	second, _ := s.mint("ann", `{}`)
	if keyOf(first) == keyOf(second) || !works(first) || !works(second) {
		t.Fatal("after a new key", first, second)
	}
	rotate(false)
	rotate(false)
	if !works(first) {
		t.Error("the first key is forgotten too early")
	}
	rotate(false)
	if works(first) || !works(second) {
		t.Error("too many keys are kept, or too few")
	}
	rotate(true)
	if works(second) {
		t.Error("an earlier key is not forgotten")
	}
	if err := os.WriteFile(filepath.Join(s.cfg.Data, watchKeyFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	third, _ := s.mint("ann", `{}`)
	s.loadKeys()
	if !works(third) {
		t.Error("with a damaged file the keys of before are lost")
	}
}

// loadKeys loads the keys of the tokens, as the server does every few seconds.
func (s *testServer) loadKeys() { _ = s.components.keys.load(s.t.Context()) }
