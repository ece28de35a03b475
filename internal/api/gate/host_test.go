package gate

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
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
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/jobs", func(http.ResponseWriter, *http.Request) { admitted = true })
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
		{"a program without an Origin is let in", loopback, "127.0.0.1:8080", "", true},
		{"localhost is ours", loopback, "localhost:8080", "", true},
		{"all of 127/8 is ours", loopback, "127.3.2.1", "", true},
		{"IPv6 loopback is ours", loopback, "[::1]:8080", "", true},
		{"so is its bare form", loopback, "[::1]", "", true},
		{"a name that resolves to us is foreign", loopback, "evil.example:8080", "", false},
		{"a name that begins like ours is foreign", loopback, "localhost.evil.example", "", false},
		{"another address is foreign", loopback, "10.0.0.1:8080", "", false},
		{"a name without a dot is foreign to loopback", loopback, "intranet", "", false},
		{"no Host at all is foreign", loopback, "", "", false},
		{"a site that was told nothing is on loopback", &Gate{}, "jobs.example", "", false},

		{"beyond loopback any Host is taken", open, "jobs.example", "", true},
		{"an empty host listens beyond loopback", &Gate{Listen: []string{":8080"}}, "jobs.example", "", true},
		{"one open listener opens the Host", &Gate{Listen: []string{"127.0.0.1:1", "10.0.0.1:1"}}, "10.0.0.1:1", "", true},

		{"the public name is ours", public, "jobs.EXAMPLE:8443", "", true},
		{"with any port: a proxy has its own", public, "jobs.example", "", true},
		{"loopback is still ours", public, "127.0.0.1:8080", "", true},
		{"another name is still foreign", public, "other.example", "", false},
		{"an address is still foreign to loopback", public, "10.0.0.1", "", false},

		{"beyond loopback the public name is ours", both, "jobs.example", "", true},
		{"an address is nobody's name", both, "10.0.0.1:8080", "", true},
		{"nor is an IPv6 address", both, "[2001:db8::1]:8080", "", true},
		{"a name without a dot is nobody's in public", both, "meanwhile:8080", "", true},
		{"nor is one under internal", both, "jobs.acme.internal:8080", "", true},
		{"any other name may be a stranger's", both, "other.example", "", false},
		{"as may one that ends alike", both, "evil-internal.example", "", false},
		{"no Host is nobody", both, "", "", false},

		{"our own page is let in", loopback, "localhost:8080", "http://localhost:8080", true},
		{"names are compared without case", open, "Jobs.example:8080", "http://jobs.EXAMPLE:8080", true},
		{"the scheme's port may be left out", open, "jobs.example", "http://jobs.example:80", true},
		{"behind a proxy with TLS too", open, "jobs.example", "https://jobs.example", true},
		{"a page of the public URL is ours, whatever Host the proxy sends", public, "127.0.0.1:8080", "https://jobs.example:8443", true},
		{"its origin has the scheme's port left out", &Gate{PublicURL: mustURL("https://jobs.example:443")}, "127.0.0.1:8080", "https://jobs.example", true},
		{"a page of the public name on another port is not", public, "127.0.0.1:8080", "https://jobs.example", false},
		{"another port is another origin", loopback, "localhost:8080", "http://localhost:3000", false},
		{"another name is another origin", loopback, "localhost:8080", "http://127.0.0.1:8080", false},
		{"a foreign page is refused", loopback, "localhost:8080", "https://evil.example", false},
		{"beyond loopback too", open, "jobs.example", "https://evil.example", false},
		{"a page without an origin is refused", loopback, "localhost:8080", "null", false},
		{"another scheme is refused", loopback, "localhost:8080", "file://localhost:8080", false},
		{"an origin that is none is refused", loopback, "localhost:8080", "http://%zz", false},
	} {
		r := httptest.NewRequest("POST", "/v1/jobs", nil)
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		w, admitted := serve(tt.gate, r)
		if admitted != tt.ok {
			t.Errorf("%s: Host %q, Origin %q: let in: %v", tt.rule, tt.host, tt.origin, admitted)
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
		t.Error("let in")
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
		{"by IPv6 too", "[::1]:5000", nil, "[::1]:5000", "ann"},
		{"and by its mapped form", "[::ffff:127.0.0.1]:5000", nil, "[::ffff:127.0.0.1]:5000", "ann"},
		{"a remote peer is not believed", "192.0.2.7:5000", nil, "192.0.2.7:5000", "local"},
		{"nor is whence it says it comes", "192.0.2.7:5000", []string{"127.0.0.1"}, "192.0.2.7:5000", "local"},
		{"a peer without an address is not believed", "@", nil, "@", "local"},
		{"a trusted proxy is", "10.1.2.3:5000", nil, "10.1.2.3:5000", "ann"},
		{"by IPv6, with a zone", "[2001:db8::1%eth0]:5000", nil, "[2001:db8::1%eth0]:5000", "ann"},
		{"its neighbour is not", "10.2.2.3:5000", nil, "10.2.2.3:5000", "local"},
		{"it says whence a request comes", "10.1.2.3:5000", []string{"192.0.2.7"}, "192.0.2.7:0", "ann"},
		{"what the client itself wrote does not count", "10.1.2.3:5000", []string{"127.0.0.1, 192.0.2.7"}, "192.0.2.7:0", "ann"},
		{"a chain of proxies is followed", "127.0.0.1:5000", []string{"198.51.100.9, 192.0.2.7", "10.1.0.1,10.1.9.9"}, "192.0.2.7:0", "ann"},
		{"to the first that says nonsense", "127.0.0.1:5000", []string{"192.0.2.7, unknown, 10.1.9.9"}, "10.1.9.9:0", "ann"},
		{"nonsense alone says nothing", "127.0.0.1:5000", []string{"unknown"}, "127.0.0.1:0", "ann"},
		{"a port is left out", "127.0.0.1:5000", []string{"192.0.2.7:80"}, "192.0.2.7:0", "ann"},
		{"also of IPv6", "127.0.0.1:5000", []string{"[2001:db9::7]:80"}, "[2001:db9::7]:0", "ann"},
		{"brackets too", "127.0.0.1:5000", []string{"[2001:db9::7]"}, "[2001:db9::7]:0", "ann"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.peer
		r.Header.Set("X-User-ID", "ann")
		if tt.chain != nil {
			r.Header[forwardedFor] = tt.chain
		}
		got := s.dropUntrusted(r)
		if got.RemoteAddr != tt.from || Owner(got).User != tt.user {
			t.Errorf("%s: %s from %s", tt.rule, Owner(got).User, got.RemoteAddr)
		}
		if r.RemoteAddr != tt.peer || r.Header.Get("X-User-ID") != "ann" {
			t.Errorf("%s: the server's own request was changed", tt.rule)
		}
	}
}

// The scheme that an untrusted peer names is in no URL.
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
