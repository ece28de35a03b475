package gate

import (
	"net/http/httptest"
	"testing"
)

// One client has a whole IPv6 network, and must not be as many callers as that has addresses.
func TestCallerIsANetworkOfIPv6(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:5000":              "192.0.2.1",
		"[::ffff:192.0.2.1]:5000":     "192.0.2.1",
		"[2001:db8:1:2::a]:5000":      "2001:db8:1:2::",
		"[2001:db8:1:2:ffff::b]:1":    "2001:db8:1:2::",
		"[fe80::1%eth0]:1":            "fe80::1",
		"unknown, through 10.0.0.1:1": "unknown, through 10.0.0.1",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = remote
		if got := clientOf(r); got != want {
			t.Errorf("%s: %s", remote, got)
		}
	}
}

// A token after several spaces counts, so that its request is not made as the user "local".
func TestTokenAfterSpaces(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Bearer ut_x", "bearer  ut_x", "BEARER   wt_x"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if _, ok := tokenOf(r); !ok {
			t.Errorf("%q has no token", header)
		}
	}
}
