package gate

import (
	"net/http"
	"unicode"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	userHeader = "X-User-Id" // as net/http spells X-User-ID
	localUser  = "local"
	maxUser    = 128 // bytes
)

// Owner is in whose name a request asks: the owner that its watch token names; else the
// user that X-User-ID names; else the user "local". [Gate.Handler] has removed the header
// where it is not believed, and has refused a malformed name: falling back to another
// user would show them someone else's jobs.
func Owner(r *http.Request) job.Owner {
	if g, bearer := GrantOf(r); bearer {
		return g.Owner
	}
	user := api.Header(r, userHeader)
	if user == "" || !validUser(user) {
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
