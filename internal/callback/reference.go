package callback

import (
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// reference is a receiver of a job's end, as the job keeps it in [job.Job.Refs]. It is either a
// URL, with the secret that signs, or an endpoint, whose URL and secret are looked up at each
// attempt.
type reference struct {
	events   job.Events
	endpoint string // its id, or ""
	url      string
	secretID string // "" for the default secret of the tenant; not with an endpoint
}

// prefix begins a reference of this package.
const prefix = "callback "

// String writes the reference: the events as a number, the id of the secret or "-", and the
// endpoint or the URL. None of them has a space.
func (r reference) String() string {
	secret := r.secretID
	if secret == "" {
		secret = "-"
	}
	return prefix + strconv.Itoa(int(r.events)) + " " + secret + " " + r.receiver()
}

func parseReference(text string) (r reference, ok bool) {
	text, ok = strings.CutPrefix(text, prefix)
	if !ok {
		return r, false
	}
	events, rest, _ := strings.Cut(text, " ")
	secret, receiver, ok := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(events, 10, 8)
	if !ok || err != nil {
		return r, false
	}
	r.events = job.Events(n)
	if secret != "-" {
		r.secretID = secret
	}
	if strings.HasPrefix(receiver, idPrefix) {
		r.endpoint = receiver
	} else {
		r.url = receiver
	}
	return r, true
}

// receiver is the endpoint or the URL.
func (r reference) receiver() string {
	if r.endpoint != "" {
		return r.endpoint
	}
	return r.url
}
