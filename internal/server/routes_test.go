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
