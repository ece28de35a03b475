package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheGuard(t *testing.T) {
	loopback, open := []string{"127.0.0.1:8080", "[::1]:8080"}, []string{"0.0.0.0:8080"}
	for _, tt := range []struct {
		rule   string
		listen []string
		host   string
		origin string
		ok     bool
	}{
		{"a program without an Origin is let in", loopback, "127.0.0.1:8080", "", true},
		{"localhost is ours", loopback, "localhost:8080", "", true},
		{"all of 127/8 is ours", loopback, "127.3.2.1", "", true},
		{"IPv6 loopback is ours", loopback, "[::1]:8080", "", true},
		{"so is its bare form", loopback, "[::1]", "", true},
		{"a name that resolves to us is foreign", loopback, "evil.example:8080", "", false},
		{"a name that begins like ours is foreign", loopback, "localhost.evil.example", "", false},
		{"another address is foreign", loopback, "10.0.0.1:8080", "", false},
		{"no Host at all is foreign", loopback, "", "", false},
		{"beyond loopback any Host is taken", open, "jobs.example", "", true},
		{"an empty host listens beyond loopback", []string{":8080"}, "jobs.example", "", true},
		{"one open listener opens the Host", []string{"127.0.0.1:1", "10.0.0.1:1"}, "10.0.0.1:1", "", true},
		{"our own page is let in", loopback, "localhost:8080", "http://localhost:8080", true},
		{"names are compared without case", open, "Jobs.example:8080", "http://jobs.EXAMPLE:8080", true},
		{"the scheme's port may be left out", open, "jobs.example", "http://jobs.example:80", true},
		{"behind a proxy with TLS too", open, "jobs.example", "https://jobs.example", true},
		{"another port is another origin", loopback, "localhost:8080", "http://localhost:3000", false},
		{"another name is another origin", loopback, "localhost:8080", "http://127.0.0.1:8080", false},
		{"a foreign page is refused", loopback, "localhost:8080", "https://evil.example", false},
		{"beyond loopback too", open, "jobs.example", "https://evil.example", false},
		{"a page without an origin is refused", loopback, "localhost:8080", "null", false},
		{"another scheme is refused", loopback, "localhost:8080", "file://localhost:8080", false},
		{"an origin that is none is refused", loopback, "localhost:8080", "http://%zz", false},
	} {
		reached := false
		h := Guard(tt.listen...)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
		r := httptest.NewRequest("POST", "/v1/jobs", nil)
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if reached != tt.ok {
			t.Errorf("%s: Host %q, Origin %q: let in: %v", tt.rule, tt.host, tt.origin, reached)
		}
		if !tt.ok && (w.Code != 403 || !strings.Contains(w.Body.String(), `"code":"forbidden"`)) {
			t.Errorf("%s: %d %s", tt.rule, w.Code, w.Body)
		}
	}
}

func TestTwoOriginsAreRefused(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "localhost"
	r.Header["Origin"] = []string{"http://localhost", "http://localhost"}
	if foreign(r, false) == nil {
		t.Error("let in")
	}
}
