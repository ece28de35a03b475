package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// patterns is a mux that records the patterns that it gets.
type patterns []string

func (p *patterns) Handle(pattern string, _ gate.Need, _ http.Handler) { *p = append(*p, pattern) }

// described lists the calls in the server's OpenAPI document.
func described(t *testing.T, s *testServer, headers ...string) []string {
	t.Helper()
	status, text := s.text("GET", "/openapi.json", "", headers...)
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || status != 200 {
		t.Fatalf("%d: %v", status, err)
	}
	var calls []string
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "parameters" {
				calls = append(calls, strings.ToUpper(method)+" "+path)
			}
		}
	}
	return calls
}

func TestOpenAPIHasEveryRouteAndNoOther(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	var answered patterns
	s.components.register(&answered)
	calls := described(t, s)
	for i, call := range answered {
		answered[i] = strings.TrimSuffix(call, "{$}") // only the path itself
		call = answered[i]
		if !slices.Contains(calls, call) {
			t.Errorf("%s is answered and not described: see internal/api/openapi", call)
		}
	}
	for _, call := range calls {
		if !slices.Contains(answered, call) {
			t.Errorf("%s is described and not answered", call)
		}
	}
}

func TestDocsPageHasEveryRoute(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	status, text := s.text("GET", "/docs", "")
	if status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	for _, call := range described(t, s) {
		if _, path, _ := strings.Cut(call, " "); !strings.Contains(text, "<code>"+path+"</code>") {
			t.Errorf("it does not name %s", call)
		}
	}
}
