package jobs

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// pastEnd refuses a cursor that the job's output has not reached: it was never
// handed out.
func pastEnd(after int64, j *job.Job) error {
	if after <= j.Cursor {
		return nil
	}
	return job.Errorf(job.Invalid, "the cursor %d is past the end of the job's output, which is %d", after, j.Cursor)
}

// doneMark ends the id of a done event: a watcher that comes back with it has seen
// all there is.
const doneMark = ".done"

// eventID is the place in a job's events that an SSE id names: after the entry
// seq, or after the done event that followed it. It is a function of the job's log
// and of its having ended, so it is the same on every connection.
type eventID struct {
	seq  int64
	done bool
}

func parseEventID(text string) (eventID, error) {
	digits, done := strings.CutSuffix(text, doneMark)
	if done && digits == "" {
		digits = text
	}
	seq, err := api.ParseSeq(digits)
	return eventID{seq, done}, err
}

// eventIDOf is where a request goes on: Last-Event-ID, which a browser sends when
// it reconnects, before ?after=, which stays as it was in the address.
func eventIDOf(r *http.Request) (eventID, error) {
	q, err := query(r, "after")
	if err != nil {
		return eventID{}, err
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return parseEventID(last)
	}
	return parseEventID(q.Get("after"))
}

// sawAll says whether there is nothing after the place, and never will be unless
// the job is queued again.
func (e eventID) sawAll(j *job.Job) bool {
	return e.done && j.State.Ended() && e.seq == j.Cursor
}

func (e eventID) append(b []byte) []byte {
	b = strconv.AppendInt(b, e.seq, 10)
	if e.done {
		b = append(b, doneMark...)
	}
	return b
}
