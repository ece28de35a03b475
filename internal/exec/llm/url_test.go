package llm

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever form a base URL has, calls go to /chat/completions, or New refuses it with a sentence.
func TestEndpointOfEachForm(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"http://host":                                      "http://host/chat/completions",
		"http://host/":                                     "http://host/chat/completions",
		"http://host:8000":                                 "http://host:8000/chat/completions",
		"http://host:8000//":                               "http://host:8000/chat/completions",
		"http://host:":                                     "http://host:/chat/completions",
		"HTTP://Host/V1":                                   "http://Host/V1/chat/completions",
		"  http://host/v1 \n":                              "http://host/v1/chat/completions",
		"https://host/v1":                                  "https://host/v1/chat/completions",
		"https://host/v1/":                                 "https://host/v1/chat/completions",
		"https://host/v1/chat/completions":                 "https://host/v1/chat/completions",
		"https://host/v1/chat/completions/":                "https://host/v1/chat/completions",
		"https://host/chat/completions":                    "https://host/chat/completions",
		"https://host?api-version=2024-10-21":              "https://host/chat/completions?api-version=2024-10-21",
		"https://host/o/d/x?api-version=1":                 "https://host/o/d/x/chat/completions?api-version=1",
		"https://host/o/chat/completions?api-version=1":    "https://host/o/chat/completions?api-version=1",
		"https://host/v1?":                                 "https://host/v1/chat/completions",
		"http://[::1]:8080":                                "http://[::1]:8080/chat/completions",
		"http://[fe80::1%25eth0]:8080/v1":                  "http://[fe80::1%25eth0]:8080/v1/chat/completions",
		"http://host/a%2Fb/v1":                             "http://host/a%2Fb/v1/chat/completions",
		"http://host/a b":                                  "http://host/a%20b/chat/completions",
		"https://gw.example.com/v1/acct/gw/openai?b=2&a=1": "https://gw.example.com/v1/acct/gw/openai/chat/completions?a=1&b=2",
		"http://host/v1/chat":                              "http://host/v1/chat/chat/completions",
		"":                                                 "",
		"host:8000/v1":                                     "",
		"localhost/v1":                                     "",
		"//host/v1":                                        "",
		"http://":                                          "",
		"http://:8000/v1":                                  "",
		"http:///v1":                                       "",
		"http://::1:8080/v1":                               "",
		"ftp://host/v1":                                    "",
		"unix:///run/model.sock":                           "",
		"http://host:99999/v1":                             "",
		"http://host:0/v1":                                 "",
		"http://host:port/v1":                              "",
		"http://user:secret@host/v1":                       "",
		"http://host/v1#part":                              "",
		"http://ho st/v1":                                  "",
		"http://host/v1?a=%zz":                             "",
		"http://host/v1\x00":                               "",
	} {
		at, err := endpoint(base, nil)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q is accepted as %s", base, at)
		case want != "" && (err != nil || at.String() != want):
			t.Errorf("%q leads to %v, want %s: %v", base, at, want, err)
		case err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) < 20):
			t.Errorf("%q is refused with %q", base, err)
		}
	}
	at, err := endpoint("http://host/v1?a=1&b=2", map[string]string{"b": "x y", "c": "&"})
	if err != nil || at.RawQuery != "a=1&b=x+y&c=%26" {
		t.Errorf("%v: %v", at, err)
	}
}

// A base URL without a path works on a real connection: the request line begins with a slash.
func TestCallsOfABaseURLWithoutPath(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.RequestURI
		streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
	}))
	t.Cleanup(server.Close)
	for _, c := range []struct{ base, want string }{
		{server.URL, "/chat/completions"},
		{server.URL + "/", "/chat/completions"},
		{server.URL + "/v1/?api-version=7", "/v1/chat/completions?api-version=7"},
	} {
		run(t, newExecutor(t, c.base), hello)
		if got := <-asked; got != c.want {
			t.Errorf("%s asks for %s", c.base, got)
		}
	}
}

// A model's own headers, query and name are sent with each call, and its secrets are in no
// message.
func TestOwnHeadersAndQuery(t *testing.T) {
	t.Parallel()
	var got http.Header
	var uri string
	refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, uri = r.Header, r.RequestURI
		http.Error(w, "no access for "+r.Header.Get("api-key")+" and "+r.URL.RawQuery, http.StatusForbidden)
	})
	server := httptest.NewServer(refuse)
	t.Cleanup(server.Close)
	e := mustNew(t, Config{Models: []Model{{
		Name: "m", BaseURL: server.URL, APIKey: testKey,
		Headers: map[string]string{"api-key": "s3cret-header", "HTTP-Referer": "https://app.example.com", "user-agent": "mine/1"},
		Query:   map[string]string{"key": "s3cret-query"}, Secrets: []string{"s3cret-header", "s3cret-query"},
	}}})
	f, _ := runFailing(t, e, hello)
	if got.Get("Api-Key") != "s3cret-header" || got.Get("Http-Referer") != "https://app.example.com" || got.Get("User-Agent") != "mine/1" ||
		got.Get("Authorization") != "Bearer "+testKey || uri != "/chat/completions?key=s3cret-query" {
		t.Errorf("the server got %s %v", uri, got)
	}
	if strings.Contains(f.Error(), "s3cret") || strings.Contains(f.Error(), testKey) {
		t.Errorf("a secret is in %q", f.Error())
	}
	for name, value := range map[string]string{"Host": "x", "content-length": "1", "Transfer-Encoding": "chunked", "a b": "c", "": "x", "a": "b\r\nc: d"} {
		if _, err := New(Config{Models: []Model{{Name: "m", BaseURL: server.URL, Headers: map[string]string{name: value}}}}); err == nil {
			t.Errorf("the header %q with the value %q is accepted", name, value)
		}
	}
}
