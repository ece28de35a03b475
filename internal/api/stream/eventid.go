package stream

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// EventID is a place in a job's events: after the entry Seq, or after the done event that
// followed it. It is a function of the job's log and of its having ended, so it is the
// same on every connection.
type EventID struct {
	Seq  int64
	Done bool
}

// doneSuffix ends the id of a done event: a watcher that comes back with it has had every
// event.
const doneSuffix = ".done"

// ParseEventID reads an id; "" is the place before the first entry.
func ParseEventID(text string) (EventID, error) {
	digits, done := strings.CutSuffix(text, doneSuffix)
	if done && digits == "" {
		digits = text
	}
	seq, err := api.ParseSeq(digits)
	return EventID{seq, done}, err
}

// ResumeAt is the place that a request goes on from: the header Last-Event-ID, which a
// browser sends when it reconnects, before the parameter after, which stays as it was in
// the address.
func ResumeAt(r *http.Request, after string) (EventID, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return ParseEventID(last)
	}
	return ParseEventID(after)
}

// IsLast says whether there is nothing after the place, and never will be unless the job
// is queued again.
func (e EventID) IsLast(j *job.Job) bool { return e.Done && j.State.Ended() && e.Seq == j.Cursor }

// Append writes the id.
func (e EventID) Append(b []byte) []byte {
	b = strconv.AppendInt(b, e.Seq, 10)
	if e.Done {
		b = append(b, doneSuffix...)
	}
	return b
}
