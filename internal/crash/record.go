package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// record is all that the clients were told, and each thing the server said that
// contradicts it. It knows nothing but answers.
type record struct {
	mu sync.Mutex
	// guarded by mu
	jobs    map[string]*known
	keys    map[string]string            // idempotency key → the job that it made
	unsure  map[string]client.Submission // idempotency key → a submission whose answer never came
	broken  []string                     // promises, in words
	entries int                          // seen for the first time
}

// known is a job as its clients know it.
type known struct {
	id      string
	sub     client.Submission
	seen    map[int64]string // entries, by number
	ends    []end            // different ones; one, and one more for each retry asked for
	retries int              // asked for, whether or not an answer came
	// mustCancel says that a cancel was acknowledged before the job had ended.
	mustCancel bool
}

// end is how a job ended. Two ends of one job are the same if status and time are.
type end struct {
	status client.Status
	at     time.Time
	result string // "" until an answer showed it: not all do
}

func newRecord() *record {
	return &record{jobs: map[string]*known{}, keys: map[string]string{}, unsure: map[string]client.Submission{}}
}

func (r *record) breakLocked(format string, args ...any) {
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
}

// blame notes a broken promise.
func (r *record) blame(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breakLocked(format, args...)
}

// asking notes that a submission is on its way: from now on it may have made a job.
func (r *record) asking(s client.Submission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, acked := r.keys[s.IdempotencyKey]; !acked {
		r.unsure[s.IdempotencyKey] = s
	}
}

// refused notes that a submission made no job.
func (r *record) refused(s client.Submission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unsure, s.IdempotencyKey)
}

// acked notes that a submission was answered with a job.
func (r *record) acked(s client.Submission, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unsure, s.IdempotencyKey)
	if was, ok := r.keys[s.IdempotencyKey]; ok && was != id {
		r.breakLocked("the idempotency key %s made two jobs: %s and %s", s.IdempotencyKey, was, id)
		return
	}
	r.keys[s.IdempotencyKey] = id
	if r.jobs[id] == nil {
		r.jobs[id] = &known{id: id, sub: s, seen: map[int64]string{}}
	}
}

// before is what was known of a job when a question was put: an answer must agree
// with that, and may know more than what was learned meanwhile.
type before struct {
	ended bool  // for good: nobody had asked for a retry
	last  int64 // the number of the last entry that was seen
}

// asks notes that a question about a job is being put.
func (r *record) asks(id string) before {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[id]
	b := before{ended: len(k.ends) > 0 && k.retries == 0}
	for seq := range k.seen {
		b.last = max(b.last, seq)
	}
	return b
}

// saw notes a job as an answer showed it.
func (r *record) saw(j *client.Job, then before) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[j.ID]
	if !j.Status.Ended() {
		if then.ended && k.retries == 0 {
			r.breakLocked("%s had ended as %s and is %s", j.ID, k.ends[0].status, j.Status)
		}
		return
	}
	if k.mustCancel && j.Status != client.Cancelled {
		r.breakLocked("the cancel of %s was acknowledged, and it ended as %s", j.ID, j.Status)
	}
	e := k.endOf(j)
	if len(k.ends) > 1+k.retries {
		r.breakLocked("%s was to end once and ended %d times: %+v", j.ID, len(k.ends), k.ends)
	}
	switch result := string(j.Result); {
	case result == "" || result == "null":
	case e.result == "":
		e.result = result
	case e.result != result:
		r.breakLocked("the result of %s was %s and is %s", j.ID, e.result, result)
	}
}

// endOf finds the end that an answer tells of, or notes it as a new one.
func (k *known) endOf(j *client.Job) *end {
	for i := range k.ends {
		if e := &k.ends[i]; e.status == j.Status && e.at.Equal(j.FinishedAt) {
			return e
		}
	}
	k.ends = append(k.ends, end{status: j.Status, at: j.FinishedAt})
	return &k.ends[len(k.ends)-1]
}

// cancelled notes the answer to a cancel.
func (r *record) cancelled(j *client.Job) {
	r.mu.Lock()
	k := r.jobs[j.ID]
	k.mustCancel = k.mustCancel || !j.CancelRequestedAt.IsZero() || j.Status == client.Cancelled
	r.mu.Unlock()
	r.saw(j, before{})
}

// retrying notes that a retry is on its way: the job may begin anew.
func (r *record) retrying(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs[id].retries++
	r.jobs[id].mustCancel = false
}

// heard notes an entry of a job's output.
func (r *record) heard(id string, e client.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[id]
	text := fmt.Sprintf("attempt %d %s %s", e.Attempt, e.Kind, e.Data)
	switch was, ok := k.seen[e.Seq]; {
	case !ok:
		k.seen[e.Seq] = text
		r.entries++
	case was != text:
		r.breakLocked("entry %d of %s was %q and is %q", e.Seq, id, was, text)
	}
}

// readWhole notes a job's output, read from its beginning to the job's cursor.
func (r *record) readWhole(id string, entries []client.Entry, cursor int64, then before) {
	for i, e := range entries {
		if e.Seq != int64(i)+1 {
			r.blame("entry %d of %s stands where %d belongs", e.Seq, id, i+1)
			return
		}
		r.heard(id, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int64(len(entries)) < cursor {
		r.breakLocked("%s has %d entries, and its cursor is %d", id, len(entries), cursor)
	}
	if int64(len(entries)) < then.last {
		r.breakLocked("entry %d of %s was seen and is gone: there are %d", then.last, id, len(entries))
	}
}

// all lists the jobs that pass the test.
func (r *record) all(test func(*known) bool) []*known {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*known
	for _, k := range r.jobs {
		if test(k) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *known) int { return compare(a.id, b.id) })
	return list
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// open lists the submissions whose answers never came.
func (r *record) open() []client.Submission {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []client.Submission
	for _, s := range r.unsure {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b client.Submission) int { return compare(a.IdempotencyKey, b.IdempotencyKey) })
	return list
}

// tally is a record in numbers.
type tally struct{ acked, ended, entries, broken int }

func (r *record) tally() tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := tally{acked: len(r.jobs), entries: r.entries, broken: len(r.broken)}
	for _, k := range r.jobs {
		if len(k.ends) > 0 {
			t.ended++
		}
	}
	return t
}
