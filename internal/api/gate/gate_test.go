package gate

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func handler() http.Handler {
	mux := NewMux()
	ok := func(w http.ResponseWriter, r *http.Request) { api.WriteJSON(w, 200, CallerFrom(r).Owner().User) }
	mux.Handle("GET /v1/things/{id}", AnyCaller(), http.HandlerFunc(ok))
	mux.Handle("DELETE /v1/things/{id}", AnyCaller(), http.HandlerFunc(ok))
	mux.Handle("POST /v1/things", AnyCaller(), http.HandlerFunc(ok))
	mux.Handle("POST /v1/things/many", AnyCaller(), http.HandlerFunc(ok))
	return (&Gate{Listen: []string{"127.0.0.1:8080"}}).Handler(mux)
}

func request(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:5000"
	for i := 0; i < len(header); i += 2 {
		r.Header[http.CanonicalHeaderKey(header[i])] = []string{header[i+1]}
	}
	w := httptest.NewRecorder()
	handler().ServeHTTP(w, r)
	return w
}

func TestUnknownPathOrMethodGetsProblem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/v1/things/7", 200, ""},
		{"HEAD", "/v1/things/7", 200, ""},
		{"POST", "/v1/things/7", 405, "GET, HEAD, DELETE"},
		{"OPTIONS", "/v1/things", 405, "POST"},
		{"PUT", "/v1/things/many", 405, "POST"}, // the name of a call is not an id
		{"BREW", "/v1/things", 405, "POST"},
		{"GET", "/v1/nothing", 404, ""},
		{"GET", "/", 404, ""},
		{"POST", "/v1/things/", 404, ""},
		{"POST", "/v1//things", 404, ""},
		{"POST", "//v1/things", 404, ""},
		{"DELETE", "/v1/things/../things/7", 404, ""},
		{"DELETE", "/v1/things/.", 404, ""},
	} {
		w := request(tt.method, tt.path)
		if w.Code != tt.status || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d with Allow %q, want %d with %q", tt.method, tt.path, w.Code, w.Header().Get("Allow"), tt.status, tt.allow)
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: no problem: %s", tt.method, tt.path, w.Body)
		}
	}
}

// The error for an unknown path points to the documentation.
func TestUnknownPathGetsHint(t *testing.T) {
	t.Parallel()
	for path, hint := range map[string]string{"/": "/docs", "/jobs": "/docs", "/v1/things//cancel": "empty"} {
		if w := request("POST", path); !strings.Contains(w.Body.String(), hint) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
}

func TestResponseHasRequestID(t *testing.T) {
	t.Parallel()
	if got := request("GET", "/", "X-Request-ID", "abc-123").Header().Get("X-Request-ID"); got != "abc-123" {
		t.Errorf("a caller's id became %q", got)
	}
	for _, bad := range []string{"", "two words", "line\nbreak", strings.Repeat("x", 129)} {
		got := request("GET", "/", "X-Request-ID", bad).Header().Get("X-Request-ID")
		if len(got) != 16 {
			t.Errorf("for %q the id is %q, want a new one", bad, got)
		}
	}
}

// A request that the gate refuses gets a request id too.
func TestRefusedOriginGetsRequestID(t *testing.T) {
	t.Parallel()
	w := request("GET", "/v1/things/7", "Origin", "http://evil.example")
	if w.Code != 403 || w.Header().Get("X-Request-ID") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestOwnerComesFromUserHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rule, user, want string }{
		{"the header names the user", "ann", "ann"},
		{"without the header the user is local", "", "local"},
		{"a name may have letters beyond ASCII", "Zoë", "Zoë"},
	} {
		if w := request("GET", "/v1/things/7", "X-User-ID", tt.user); w.Code != 200 || w.Body.String() != `"`+tt.want+`"` {
			t.Errorf("%s: %d %s", tt.rule, w.Code, w.Body)
		}
	}
}

// A malformed name is refused. With "local" in its place it would see the jobs of another
// user.
func TestMalformedUserIsRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{strings.Repeat("x", 129), "tab\there", "\xff", "a\u200bb"} {
		if w := request("GET", "/v1/things/7", "X-User-ID", bad); w.Code != 400 {
			t.Errorf("%q: %d %s", bad, w.Code, w.Body)
		}
	}
}

// A refusal has the format of the API that the request is for, even where the gate
// refuses it.
func TestRefusalHasFormatOfItsAPI(t *testing.T) {
	t.Parallel()
	g := &Gate{Listen: []string{"127.0.0.1:8080"}, Tokens: tokensAt(noon, 1)}
	own := func(w http.ResponseWriter, err error) { api.WriteJSON(w, http.StatusTeapot, string(job.CodeOf(err))) }
	nothing := func(http.ResponseWriter, *http.Request) error { return nil }
	mux := NewMux()
	mux.Handle("GET /own/{id}", AnyCaller().WatchToken(MayCancel, "id"), api.Wrap(nil, own, nothing))
	mux.Handle("GET /native", AnyCaller(), api.Wrap(nil, api.WriteProblem, nothing))
	h := g.Handler(mux)
	token := seal(g.Tokens, testGrant())
	for _, tt := range []struct {
		path, origin string
		status       int
		says         string
	}{
		{"POST /own/x", "", http.StatusTeapot, `"method_not_allowed"`},
		{"POST /native", "", http.StatusMethodNotAllowed, `"code":"method_not_allowed"`},
		{"/own/" + testGrant().Job.String(), "https://evil.example", http.StatusTeapot, `"forbidden"`},
		{"/own/" + testGrant().Job.String() + "?token=wt_x", "", http.StatusTeapot, `"bad_token"`},
		{"/own/" + testGrant().Job.String() + "?token=" + token, "", http.StatusTeapot, `"forbidden"`},
		{"/own/x?token=" + token, "", http.StatusTeapot, `"not_found"`},
		{"/native", "https://evil.example", http.StatusForbidden, `"code":"forbidden"`},
		{"/native?token=" + token, "", http.StatusForbidden, `"code":"forbidden"`},
		{"/nowhere", "https://evil.example", http.StatusForbidden, `"code":"forbidden"`},
	} {
		var headers []string
		if tt.origin != "" {
			headers = []string{"Origin", tt.origin}
		}
		method, path, ok := strings.Cut(tt.path, " ")
		if !ok {
			method, path = "GET", tt.path
		}
		if w := requestTo(h, method, path, headers...); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %s", tt.path, w.Code, w.Body)
		}
	}
}
