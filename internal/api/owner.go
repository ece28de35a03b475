package api

import (
	"net/http"
	"unicode"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	userHeader = "X-User-Id" // as net/http spells X-User-ID
	localUser  = "local"
	maxUser    = 128 // bytes
)

// Owner is who asks: whoever a watch token was given to; else the user that
// X-User-ID names, which [Site.Front] has taken out where it is not believed; else
// the user "local". Front has refused a malformed name too: falling back to another
// user would show them someone else's jobs.
func Owner(r *http.Request) job.Owner {
	if g, bearer := GrantOf(r); bearer {
		return g.Owner
	}
	user := header(r, userHeader)
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

// header is the first value of a header whose name is spelled as net/http does.
func header(r *http.Request, name string) string {
	if v := r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}
