package stream

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// EventID is a position in a job's events: after the output entry Seq, or, with Done, after
// the done event that follows it. It depends only on the job's log and on whether the job
// has ended, so it is the same on every connection. The zero value is the position before
// the first entry.
type EventID struct {
	Seq  int64
	Done bool
}

// doneSuffix ends the id of a done event. A client that reconnects with it has received
// every event.
const doneSuffix = ".done"

// ParseEventID reads an id. "" is the position before the first entry.
func ParseEventID(text string) (EventID, error) {
	digits, done := strings.CutSuffix(text, doneSuffix)
	if done && digits == "" {
		digits = text // ".done" alone is invalid, but "" is not
	}
	seq, err := api.ParseSeq(digits)
	return EventID{seq, done}, err
}

// ResumeAt returns the position from which a request continues. The header Last-Event-ID
// comes before the parameter after: a browser sends the header when it reconnects, and
// repeats the URL with the old parameter.
func ResumeAt(r *http.Request, after string) (EventID, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return ParseEventID(last)
	}
	return ParseEventID(after)
}

// IsLast reports whether no event follows the position, unless the job is queued again.
func (e EventID) IsLast(j *job.Job) bool { return e.Done && j.State.Ended() && e.Seq == j.Cursor }

// Append appends the text of the id to b.
func (e EventID) Append(b []byte) []byte {
	b = strconv.AppendInt(b, e.Seq, 10)
	if e.Done {
		b = append(b, doneSuffix...)
	}
	return b
}
