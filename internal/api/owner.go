package api

import (
	"net/http"
	"net/netip"
	"unicode"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	userHeader = "X-User-Id" // as net/http spells X-User-ID
	localUser  = "local"
	maxUser    = 128 // bytes
)

// Owner is who asks. X-User-ID names the user, and is believed only from a
// loopback peer: an application that speaks for its users. Everyone else is the
// user "local". [Front] has refused a malformed name before.
func Owner(r *http.Request) job.Owner {
	user := header(r, userHeader)
	if user == "" || !validUser(user) || !loopbackPeer(r.RemoteAddr) {
		user = localUser
	}
	return job.Owner{User: user}
}

func validUser(name string) bool {
	if len(name) > maxUser || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func loopbackPeer(addr string) bool {
	peer, err := netip.ParseAddrPort(addr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// header is the first value of a header whose name is spelled as net/http does.
func header(r *http.Request, name string) string {
	if v := r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}
