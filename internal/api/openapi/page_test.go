package openapi

import (
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// testMux serves the description. All tests share it, because it builds the page only once.
var testMux = sync.OnceValue(func() http.Handler {
	mux := gate.NewMux()
	Register(mux)
	return (&gate.Gate{}).Handler(mux)
})

func get(t *testing.T, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "http://localhost"+path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	testMux().ServeHTTP(w, r)
	return w
}

func TestPageShowsEveryCallAndSchema(t *testing.T) {
	t.Parallel()
	doc, text := testDocument(t), html.UnescapeString(get(t, "/docs").Body.String())
	for _, c := range operations(doc) {
		_, shown, _ := strings.Cut(text, `<details class="call" id="`+c.at("operationId").text()+`">`)
		shown, _, _ = strings.Cut(shown, `<details class="call"`)
		for _, want := range []string{"<code>" + c.path + "</code>", c.at("summary").text(), "http://" + address, "<h3>Answers</h3>"} {
			if c.at("x-websocket").node != nil {
				want = strings.Replace(want, "http://", "ws://", 1)
			}
			if !strings.Contains(shown, want) {
				t.Errorf("%s %s: the page does not show %q", c.method, c.path, want)
			}
		}
		for _, r := range c.at("responses").pairs() {
			if !strings.Contains(shown, `<b class="status">`+r.key+"</b>") {
				t.Errorf("%s %s: the page does not show the answer %s", c.method, c.path, r.key)
			}
			for _, code := range errorCodes(doc, r.value) {
				if !strings.Contains(shown, "<code>"+code+"</code>") {
					t.Errorf("%s %s: the page does not show the code %s", c.method, c.path, code)
				}
			}
		}
	}
	for _, s := range doc.at("components", "schemas").pairs() {
		if !strings.Contains(text, `id="schema-`+s.key+`"`) {
			t.Errorf("the page does not show the schema %s", s.key)
		}
	}
}

func TestPageLoadsNothing(t *testing.T) {
	t.Parallel()
	w := get(t, "/docs")
	text := w.Body.String()
	outside := regexp.MustCompile(`(?i)(?:src|action|srcset|poster|data)\s*=|<link|<iframe|<object|@import|url\(|fetch\(|XMLHttpRequest|href="(?:https?:)?//`)
	if found := outside.FindAllString(strings.ReplaceAll(text, "data-of=", ""), -1); len(found) > 0 {
		t.Errorf("it has %q", found)
	}
	policy := w.Header().Get("Content-Security-Policy")
	for _, tag := range []string{"style", "script"} {
		_, inline, _ := strings.Cut(text, "<"+tag+">")
		inline, _, _ = strings.Cut(inline, "</"+tag+">")
		if !strings.Contains(policy, tag+"-src 'sha256-"+digest(inline)+"'") {
			t.Errorf("its %s is not what its policy allows: %s", tag, policy)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(text, "style=") || regexp.MustCompile(` on[a-z]+="`).MatchString(text) {
		t.Errorf("its policy is %s, or it has styles or scripts in its tags", policy)
	}
}

func TestPageLinksStayOnPage(t *testing.T) {
	t.Parallel()
	text := get(t, "/docs").Body.String()
	for _, l := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if id, here := strings.CutPrefix(l[1], "#"); here && !strings.Contains(text, `id="`+id+`"`) || !here && l[1] != "openapi.json" {
			t.Errorf("it leads to %s", l[1])
		}
	}
}

func TestServeRepliesNotModified(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/openapi.json", "/docs"} {
		first := get(t, path)
		tag := first.Header().Get("ETag")
		if first.Code != 200 || first.Body.Len() == 0 || tag == "" {
			t.Fatalf("%s: %d %v", path, first.Code, first.Header())
		}
		if again := get(t, path, "If-None-Match", tag); again.Code != 304 || again.Body.Len() != 0 {
			t.Errorf("%s again: %d", path, again.Code)
		}
		if other := get(t, path, "If-None-Match", `"other"`); other.Code != 200 {
			t.Errorf("%s, another: %d", path, other.Code)
		}
	}
}
