package gate

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A route for this machine admits only requests that come from this machine and are not forwarded for
// another one.
func TestOnMachineRefusesOtherMachines(t *testing.T) {
	t.Parallel()
	mux := NewMux()
	mux.Handle("GET /inner", AnyCaller().OnMachine(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	handler := (&Gate{Listen: []string{"0.0.0.0:80"}}).Handler(mux)
	for name, c := range map[string]struct {
		from, through string
		want          int
	}{
		"this machine":                                {"127.0.0.1:5", "", 200},
		"this machine, over IPv6":                     {"[::1]:5", "", 200},
		"another machine":                             {"192.0.2.7:5", "", 403},
		"another machine that forwards for this one":  {"192.0.2.7:5", "127.0.0.1", 403},
		"another machine through a proxy on this one": {"127.0.0.1:5", "192.0.2.7", 403},
		"a peer without an address":                   {"@", "", 403},
	} {
		r := httptest.NewRequest("GET", "http://localhost/inner", nil)
		r.RemoteAddr = c.from
		if c.through != "" {
			r.Header.Set("X-Forwarded-For", c.through)
		}
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%s: %d, want %d", name, w.Code, c.want)
		}
	}
}

// routeWriter is an api.RouteRecorder.
type routeWriter struct {
	http.ResponseWriter
	pattern string
}

func (s *routeWriter) RecordRoute(pattern string) { s.pattern = pattern }

// The gate records the pattern even where it passes a changed request on.
func TestGateRecordsRoute(t *testing.T) {
	t.Parallel()
	mux := NewMux()
	mux.Handle("GET /a/{b}", AnyCaller(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	handler := (&Gate{Listen: []string{"0.0.0.0:80"}}).Handler(mux)
	for path, want := range map[string]string{"/a/1": "GET /a/{b}", "/c": "/"} {
		r := httptest.NewRequest("GET", "http://localhost"+path, nil)
		r.RemoteAddr = "192.0.2.7:5"
		r.Header.Set("X-User-ID", "ann")
		w := &routeWriter{ResponseWriter: httptest.NewRecorder()}
		if handler.ServeHTTP(w, r); w.pattern != want {
			t.Errorf("%s: the recorded pattern is %q, want %q", path, w.pattern, want)
		}
	}
}
