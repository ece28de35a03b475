package server

import (
	"slices"
	"strings"
	"testing"
)

// openToTokens lists the routes that a watch token opens for its own job. The last one
// needs a submit that asked for it.
var openToTokens = []string{
	"GET /v1/jobs/{id}",
	"GET /v1/jobs/{id}/output",
	"GET /v1/jobs/{id}/events",
	"GET /v1/jobs/{id}/result",
	"GET /v1/watch",
	"POST /v1/jobs/{id}/cancel",
}

// routes lists the server's routes.
func (s *testServer) routes() []string {
	var all patterns
	s.components.register(&all)
	return all
}

// at returns a request for a route's pattern.
func at(pattern, id string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, strings.NewReplacer("{id}", id, "{task}", id, "{queue}", "sim", "{name}", "x", "{$}", "").Replace(path)
}

func (s *testServer) done(id, user string) {
	s.t.Helper()
	if status, j := s.call("GET", "/v1/jobs/"+id, "", "X-User-ID", user, "Prefer", "wait=20"); status != 200 || j["status"] != "succeeded" {
		s.t.Fatalf("%d %v", status, j)
	}
}

// Every other route refuses a token, whatever the request contains.
func TestTokenOpensTheseRoutesAndNoOther(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	mine, url := s.watchURL(`{}`, "X-User-ID", "ann", "Prefer", "watch=cancel")
	another, _ := s.watchURL(`{}`, "X-User-ID", "ann")
	s.done(mine, "ann")
	s.done(another, "ann")
	_, token, _ := strings.Cut(url, "token=")
	for _, pattern := range s.routes() {
		open := slices.Contains(openToTokens, pattern)
		for _, id := range []string{mine, another} {
			method, path := at(pattern, id)
			status, text := s.text(method, path, "", "Authorization", "Bearer "+token, "X-User-ID", "ann")
			switch {
			case !open && status != 403:
				t.Errorf("%s %s answers a token with %d %s, want 403", method, path, status, text)
			case open && strings.Contains(pattern, "{id}") && id == another && status != 404:
				t.Errorf("%s %s answers the token of another job with %d %s, want 404", method, path, status, text)
			case open && id == mine && (status == 401 || status == 403 || status == 404):
				t.Errorf("%s %s answers its token with %d %s", method, path, status, text)
			}
		}
	}
}

// openToUsers lists the routes that a user's token opens, in addition to those of a watch token.
var openToUsers = []string{
	"POST /v1/jobs", "GET /v1/jobs", "POST /v1/tokens",
	"POST /api/chat", "GET /api/chat/status/{task}", "POST /api/chat/cancel/{task}", "POST /api/heartbeat", "GET /ws",
	"GET /api/conversations", "POST /api/conversations", "GET /api/conversations/{id}", "GET /api/conversations/{id}/messages",
}

// With a user's token a page asks, watches, cancels and lists, what is the user's, and no more.
func TestUsersTokenOpensTheseRoutesAndNoOther(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	status, minted := s.call("POST", "/v1/tokens", `{}`, "X-User-ID", "ann")
	if status != 201 {
		t.Fatal(status, minted)
	}
	ids := map[string]map[string]string{}
	for _, user := range []string{"ann", "bob"} {
		id, _ := s.watchURL(`{}`, "X-User-ID", user)
		_, chat := s.call("POST", "/api/chat", `{"query":"hello"}`, "X-User-ID", user)
		ids[user] = map[string]string{"job": id, "task": chat["task_id"].(string), "conversation": chat["conversation_id"].(string)}
	}
	for _, pattern := range s.routes() {
		open := slices.Contains(openToTokens, pattern) || slices.Contains(openToUsers, pattern)
		for user, own := range ids {
			of := own["job"]
			switch {
			case strings.Contains(pattern, "/conversations/{id}"):
				of = own["conversation"]
			case strings.Contains(pattern, "{task}"):
				of = own["task"]
			}
			method, path := at(pattern, of)
			// bob's name in the header does not count.
			status, text := s.text(method, path, "", "Authorization", "Bearer "+minted["token"].(string), "X-User-ID", "bob")
			switch {
			case !open && status != 403:
				t.Errorf("%s %s answers a user's token with %d %s, want 403", method, path, status, text)
			case open && path != pattern[len(method)+1:] && user == "bob" && status != 404:
				t.Errorf("%s %s answers the token of another user with %d %s, want 404", method, path, status, text)
			case open && user == "ann" && (status == 401 || status == 403 || status == 404):
				t.Errorf("%s %s answers its user's token with %d %s", method, path, status, text)
			}
		}
	}
}

func TestJobOfAnotherUserIs404OnEveryRoute(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	id, _ := s.watchURL(`{}`, "X-User-ID", "ann")
	s.done(id, "ann")
	_, chat := s.call("POST", "/api/chat", `{"query":"hello"}`, "X-User-ID", "ann")
	task, _ := chat["task_id"].(string)
	conv, _ := chat["conversation_id"].(string)
	if task == "" || conv == "" {
		t.Fatal(chat)
	}
	for _, pattern := range s.routes() {
		of := id
		switch {
		case strings.Contains(pattern, "/conversations/{id}"):
			of = conv
		case strings.Contains(pattern, "{task}"):
			of = task
		case !strings.Contains(pattern, "{id}"):
			continue
		}
		method, path := at(pattern, of)
		if status, text := s.text(method, path, "", "X-User-ID", "bob"); status != 404 {
			t.Errorf("%s %s answers another user with %d %s", method, path, status, text)
		}
	}
	s.done(id, "ann")
}
