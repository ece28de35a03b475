package gate

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

func mustURL(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

// serve sends one request through a gate and reports whether it was admitted.
func serve(s *Gate, r *http.Request) (w *httptest.ResponseRecorder, admitted bool) {
	mux := NewMux()
	mux.Handle("POST /v1/jobs", AnyCaller(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admitted = true }))
	w = httptest.NewRecorder()
	s.Handler(mux).ServeHTTP(w, r)
	return w, admitted
}

func TestGateChecksHostAndOrigin(t *testing.T) {
	t.Parallel()
	loopback := &Gate{Listen: []string{"127.0.0.1:8080", "[::1]:8080"}}
	open := &Gate{Listen: []string{"0.0.0.0:8080"}}
	public := &Gate{Listen: []string{"127.0.0.1:8080"}, PublicURL: mustURL("https://Jobs.example:8443/m")}
	both := &Gate{Listen: []string{":8080"}, PublicURL: mustURL("https://jobs.example")}
	for _, tt := range []struct {
		rule   string
		gate   *Gate
		host   string
		origin string
		ok     bool
	}{
		{"a request without an Origin is admitted", loopback, "127.0.0.1:8080", "", true},
		{"localhost is accepted", loopback, "localhost:8080", "", true},
		{"every address of 127/8 is accepted", loopback, "127.3.2.1", "", true},
		{"IPv6 loopback is accepted", loopback, "[::1]:8080", "", true},
		{"IPv6 loopback without a port is accepted", loopback, "[::1]", "", true},
		{"a name that resolves to loopback is refused", loopback, "evil.example:8080", "", false},
		{"a name with the prefix localhost is refused", loopback, "localhost.evil.example", "", false},
		{"another address is refused on loopback", loopback, "10.0.0.1:8080", "", false},
		{"a name without a dot is refused on loopback", loopback, "intranet", "", false},
		{"a missing Host is refused on loopback", loopback, "", "", false},
		{"a gate without addresses is on loopback", &Gate{}, "jobs.example", "", false},

		{"beyond loopback a name of the public DNS is refused", open, "jobs.example", "", false},
		{"beyond loopback an address is accepted without a public URL", open, "192.0.2.1:8080", "", true},
		{"beyond loopback a name without a dot is accepted without a public URL", open, "meanwhile:8080", "", true},
		{"beyond loopback a missing Host is refused", open, "", "", false},
		{"an empty host listens beyond loopback", &Gate{Listen: []string{":8080"}}, "jobs.local", "", true},
		{"one listener beyond loopback accepts addresses", &Gate{Listen: []string{"127.0.0.1:1", "10.0.0.1:1"}}, "10.0.0.1:1", "", true},
		{"the embedded handler is beyond loopback", &Gate{Listen: []string{""}}, "evil.example", "", false},
		{"an allowed host is accepted", &Gate{Listen: []string{":1"}, AllowedHosts: []string{"jobs.example"}}, "Jobs.example:8080", "", true},
		{"an allowed host is accepted on loopback", &Gate{Listen: []string{"127.0.0.1:1"}, AllowedHosts: []string{"jobs.example"}}, "jobs.example.", "", true},
		{"a name under an allowed host is refused", &Gate{Listen: []string{":1"}, AllowedHosts: []string{"jobs.example"}}, "evil.jobs.example", "", false},
		{"a star allows any host", &Gate{Listen: []string{":1"}, AllowedHosts: []string{"*"}}, "evil.example", "", true},

		{"the public name is accepted", public, "jobs.EXAMPLE:8443", "", true},
		{"the public name with another port is accepted", public, "jobs.example", "", true},
		{"loopback is accepted with a public URL too", public, "127.0.0.1:8080", "", true},
		{"another name than the public one is refused", public, "other.example", "", false},
		{"an address is refused on loopback with a public URL", public, "10.0.0.1", "", false},

		{"beyond loopback the public name is accepted", both, "jobs.example", "", true},
		{"beyond loopback an address is accepted", both, "10.0.0.1:8080", "", true},
		{"beyond loopback an IPv6 address is accepted", both, "[2001:db8::1]:8080", "", true},
		{"beyond loopback a name without a dot is accepted", both, "meanwhile:8080", "", true},
		{"beyond loopback a name under .internal is accepted", both, "jobs.acme.internal:8080", "", true},
		{"beyond loopback another public name is refused", both, "other.example", "", false},
		{"a name that only ends like .internal is refused", both, "evil-internal.example", "", false},
		{"beyond loopback a missing Host is refused with a public URL", both, "", "", false},

		{"a page of the server is admitted", loopback, "localhost:8080", "http://localhost:8080", true},
		{"names are compared without case", open, "Jobs.local:8080", "http://jobs.LOCAL:8080", true},
		{"the default port of http may be missing", open, "jobs.local", "http://jobs.local:80", true},
		{"the default port of https may be missing", open, "jobs.local", "https://jobs.local", true},
		{"a page of the public URL is admitted with any Host", public, "127.0.0.1:8080", "https://jobs.example:8443", true},
		{"a default port in the public URL does not count", &Gate{PublicURL: mustURL("https://jobs.example:443")}, "127.0.0.1:8080", "https://jobs.example", true},
		{"a page of the public name on another port is refused", public, "127.0.0.1:8080", "https://jobs.example", false},
		{"another port is another origin", loopback, "localhost:8080", "http://localhost:3000", false},
		{"another name is another origin", loopback, "localhost:8080", "http://127.0.0.1:8080", false},
		{"a foreign page is refused", loopback, "localhost:8080", "https://evil.example", false},
		{"a foreign page is refused beyond loopback", open, "jobs.local", "https://evil.example", false},
		{"the origin null is refused", loopback, "localhost:8080", "null", false},
		{"another scheme is refused", loopback, "localhost:8080", "file://localhost:8080", false},
		{"an invalid origin is refused", loopback, "localhost:8080", "http://%zz", false},
	} {
		r := httptest.NewRequest("POST", "/v1/jobs", nil)
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		w, admitted := serve(tt.gate, r)
		if admitted != tt.ok {
			t.Errorf("%s: Host %q, Origin %q: admitted: %v", tt.rule, tt.host, tt.origin, admitted)
		}
		if !tt.ok && (w.Code != 403 || !strings.Contains(w.Body.String(), `"code":"forbidden"`)) {
			t.Errorf("%s: %d %s", tt.rule, w.Code, w.Body)
		}
	}
}

func TestTwoOriginsAreRefused(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/v1/jobs", nil)
	r.Host = "localhost"
	r.Header["Origin"] = []string{"http://localhost", "http://localhost"}
	if _, admitted := serve(&Gate{AllowedOrigins: []string{"*"}}, r); admitted {
		t.Error("admitted")
	}
}

func TestOnlyTrustedPeersSetHeaders(t *testing.T) {
	t.Parallel()
	s := &Gate{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}}
	for _, tt := range []struct {
		rule  string
		peer  string
		chain []string
		from  string
		user  string
	}{
		{"a program on this machine may name a user", "127.0.0.1:5000", nil, "127.0.0.1:5000", "ann"},
		{"a program on this machine may name a user over IPv6", "[::1]:5000", nil, "[::1]:5000", "ann"},
		{"an IPv4-mapped loopback address is this machine", "[::ffff:127.0.0.1]:5000", nil, "[::ffff:127.0.0.1]:5000", "ann"},
		{"an untrusted peer may not name a user", "192.0.2.7:5000", nil, "192.0.2.7:5000", "local"},
		{"an untrusted peer may not name an address", "192.0.2.7:5000", []string{"127.0.0.1"}, "192.0.2.7:5000", "local"},
		{"a peer without an address is untrusted", "@", nil, "@", "local"},
		{"a trusted proxy may name a user", "10.1.2.3:5000", nil, "10.1.2.3:5000", "ann"},
		{"a trusted IPv6 proxy may have a zone", "[2001:db8::1%eth0]:5000", nil, "[2001:db8::1%eth0]:5000", "ann"},
		{"an address outside the trusted network is untrusted", "10.2.2.3:5000", nil, "10.2.2.3:5000", "local"},
		{"a trusted proxy may name an address", "10.1.2.3:5000", []string{"192.0.2.7"}, "192.0.2.7:0", "ann"},
		{"an address from the client itself does not count", "10.1.2.3:5000", []string{"127.0.0.1, 192.0.2.7"}, "192.0.2.7:0", "ann"},
		{"a chain of proxies is followed", "127.0.0.1:5000", []string{"198.51.100.9, 192.0.2.7", "10.1.0.1,10.1.9.9"}, "192.0.2.7:0", "ann"},
		{"a client whose address cannot be read is unknown", "127.0.0.1:5000", []string{"192.0.2.7, unknown, 10.1.9.9"}, "unknown, through 127.0.0.1:5000", "ann"},
		{"it is not this machine", "127.0.0.1:5000", []string{"unknown"}, "unknown, through 127.0.0.1:5000", "ann"},
		{"an empty header names no address", "127.0.0.1:5000", []string{""}, "unknown, through 127.0.0.1:5000", "ann"},
		{"nor does one that ends with a comma", "127.0.0.1:5000", []string{"127.0.0.1,"}, "unknown, through 127.0.0.1:5000", "ann"},
		{"an address that cannot be read before the client's does not count", "127.0.0.1:5000", []string{"unknown, 192.0.2.7"}, "192.0.2.7:0", "ann"},
		{"a program on this machine may use a proxy on it", "127.0.0.1:5000", []string{"127.0.0.1"}, "127.0.0.1:0", "ann"},
		{"the port of an address is ignored", "127.0.0.1:5000", []string{"192.0.2.7:80"}, "192.0.2.7:0", "ann"},
		{"the port of an IPv6 address is ignored", "127.0.0.1:5000", []string{"[2001:db9::7]:80"}, "[2001:db9::7]:0", "ann"},
		{"the brackets of an IPv6 address are ignored", "127.0.0.1:5000", []string{"[2001:db9::7]"}, "[2001:db9::7]:0", "ann"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.peer
		r.Header.Set("X-User-ID", "ann")
		if tt.chain != nil {
			r.Header[forwardedFor] = tt.chain
		}
		got := s.dropUntrusted(r)
		if user := cmp.Or(api.Header(got, userHeader), localUser); got.RemoteAddr != tt.from || user != tt.user {
			t.Errorf("%s: %s from %s", tt.rule, user, got.RemoteAddr)
		}
		if r.RemoteAddr != tt.peer || r.Header.Get("X-User-ID") != "ann" {
			t.Errorf("%s: the server's own request was changed", tt.rule)
		}
	}
}

// No URL has the scheme that an untrusted peer names.
func TestOnlyTrustedPeersSetScheme(t *testing.T) {
	t.Parallel()
	for peer, want := range map[string]string{"127.0.0.1:1": "https://localhost:8080", "192.0.2.7:1": "http://localhost:8080"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.RemoteAddr = "localhost:8080", peer
		r.Header.Set("X-Forwarded-Proto", "https")
		s := &Gate{}
		if got := s.baseURL(s.dropUntrusted(r)); got != want {
			t.Errorf("%s: %s", peer, got)
		}
	}
}

// A proxy that says in any other way than X-Forwarded-For that it passes a request on has
// a client that is not known to be on this machine.
func TestForwardedRequestIsNotLocal(t *testing.T) {
	t.Parallel()
	mux := NewMux()
	mux.Handle("GET /metrics", AnyCaller().OnMachine(), http.NotFoundHandler())
	h := (&Gate{}).Handler(mux)
	for _, header := range [][2]string{
		{"X-Forwarded-For", "unknown"}, {"X-Forwarded-For", ""}, {"X-Forwarded-For", "192.0.2.7"}, {"X-Forwarded-For", "_hidden"},
		{"Forwarded", "for=192.0.2.7"}, {"X-Real-IP", "192.0.2.7"}, {"Via", "1.1 proxy"}, {"X-Forwarded-Host", "jobs.example"}, {"X-Forwarded-Proto", "https"},
	} {
		if w := requestTo(h, "GET", "/metrics", header[0], header[1]); w.Code != http.StatusForbidden {
			t.Errorf("%v: %d", header, w.Code)
		}
	}
	if w := requestTo(h, "GET", "/metrics"); w.Code != http.StatusNotFound {
		t.Errorf("without a proxy: %d", w.Code)
	}
}

// A health check may send any Host, or with HTTP/1.0 none.
func TestAnyHostHandlerAnswersAnyHost(t *testing.T) {
	t.Parallel()
	for _, g := range []*Gate{{}, {Listen: []string{":8080"}}, {PublicURL: mustURL("https://jobs.example")}} {
		mux := NewMux()
		mux.Handle("GET /healthz", Anyone(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
		mux.Handle("GET /v1/jobs", AnyCaller(), http.NotFoundHandler())
		h := g.Handler(mux)
		for _, host := range []string{"", "evil.example", "192.0.2.1.evil.example"} {
			for path, want := range map[string]int{"/healthz": 204, "/v1/jobs": 403} {
				r := httptest.NewRequest("GET", path, nil)
				r.Host = host
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != want {
					t.Errorf("%s with Host %q: %d", path, host, w.Code)
				}
			}
		}
	}
}

func TestRepeatedHeadersAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range singleHeaders {
		r := httptest.NewRequest("POST", "/v1/jobs", nil)
		r.Host, r.RemoteAddr = "localhost", "127.0.0.1:5000"
		r.Header[name] = []string{"a", "a"}
		w, admitted := serve(&Gate{}, r)
		if admitted || w.Code != 400 || !strings.Contains(w.Body.String(), name) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// A browser says which page it makes a request for, also where it sends no Origin.
func TestWritesOfForeignPagesAreRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, site, origin string
		ok                   bool
	}{
		{"POST", "cross-site", "", false},
		{"POST", "same-site", "", false},
		{"POST", "new-word", "", false},
		{"POST", "cross-site", "http://127.0.0.1:8080", false}, // a page of http, where this server has https
		{"DELETE", "cross-site", "", false},
		{"POST", "same-origin", "", true},
		{"POST", "same-origin", "http://127.0.0.1:8080", true},
		{"POST", "none", "", true},
		{"POST", "", "", true},
		{"GET", "cross-site", "", true}, // a link from another site
	} {
		mux := NewMux()
		mux.Handle("/v1/jobs", AnyCaller(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
		var headers []string
		for name, value := range map[string]string{"Sec-Fetch-Site": tt.site, "Origin": tt.origin} {
			if value != "" {
				headers = append(headers, name, value)
			}
		}
		w := requestTo((&Gate{}).Handler(mux), tt.method, "/v1/jobs", headers...)
		if (w.Code == 204) != tt.ok || !tt.ok && w.Code != 403 {
			t.Errorf("%+v: %d %s", tt, w.Code, w.Body)
		}
	}
}

// That X-User-ID is not believed is logged once, with the address that sent it.
func TestUnbelievedUserIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	g := &Gate{Listen: []string{":8080"}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	mux := NewMux()
	h := g.Handler(mux)
	for _, r := range []struct{ peer, user string }{{"127.0.0.1:1", "ann"}, {"192.0.2.7:1", ""}, {"192.0.2.7:1", "ann"}, {"192.0.2.8:1", "bob"}} {
		request := httptest.NewRequest("GET", "/", nil)
		request.Host, request.RemoteAddr = "10.0.0.1", r.peer
		if r.user != "" {
			request.Header.Set("X-User-ID", r.user)
		}
		h.ServeHTTP(httptest.NewRecorder(), request)
	}
	if text := log.String(); strings.Count(text, "WARN") != 1 || !strings.Contains(text, "192.0.2.7") || !strings.Contains(text, "trusted_proxies") {
		t.Errorf("the log is\n%s", text)
	}
}
