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
	jobs       map[string]*jobRecord
	jobByKey   map[string]string            // idempotency key → the job that it made
	unanswered map[string]client.Submission // idempotency key → a submission whose answer never came
	violations []string                     // promises, in words
	entries    int                          // seen for the first time
}

// jobRecord is a job as its clients know it.
type jobRecord struct {
	id      string
	sub     client.Submission
	entries map[int64]string // entries, by number
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
	return &record{jobs: map[string]*jobRecord{}, jobByKey: map[string]string{}, unanswered: map[string]client.Submission{}}
}

func (r *record) violateLocked(format string, args ...any) {
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// violate notes a broken promise.
func (r *record) violate(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violateLocked(format, args...)
}

// submitting notes that a submission is on its way: from now on it may have made a job.
func (r *record) submitting(s client.Submission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, acked := r.jobByKey[s.IdempotencyKey]; !acked {
		r.unanswered[s.IdempotencyKey] = s
	}
}

// refused notes that a submission made no job.
func (r *record) refused(s client.Submission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unanswered, s.IdempotencyKey)
}

// acknowledged notes that a submission was answered with a job.
func (r *record) acknowledged(s client.Submission, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unanswered, s.IdempotencyKey)
	if was, ok := r.jobByKey[s.IdempotencyKey]; ok && was != id {
		r.violateLocked("the idempotency key %s made two jobs: %s and %s", s.IdempotencyKey, was, id)
		return
	}
	r.jobByKey[s.IdempotencyKey] = id
	if r.jobs[id] == nil {
		r.jobs[id] = &jobRecord{id: id, sub: s, entries: map[int64]string{}}
	}
}

// snapshot is what was known of a job when a question was put: an answer must agree
// with that, and may know more than what was learned meanwhile.
type snapshot struct {
	ended bool  // for good: nobody had asked for a retry
	last  int64 // the number of the last entry that was seen
}

// snapshot notes that a question about a job is being put.
func (r *record) snapshot(id string) snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[id]
	b := snapshot{ended: len(k.ends) > 0 && k.retries == 0}
	for seq := range k.entries {
		b.last = max(b.last, seq)
	}
	return b
}

// observe notes a job as an answer showed it.
func (r *record) observe(j *client.Job, then snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[j.ID]
	if !j.Status.Ended() {
		if then.ended && k.retries == 0 {
			r.violateLocked("%s had ended as %s and is %s", j.ID, k.ends[0].status, j.Status)
		}
		return
	}
	if k.mustCancel && j.Status != client.Cancelled {
		r.violateLocked("the cancel of %s was acknowledged, and it ended as %s", j.ID, j.Status)
	}
	e := k.findEnd(j)
	if len(k.ends) > 1+k.retries {
		r.violateLocked("%s was to end once and ended %d times: %+v", j.ID, len(k.ends), k.ends)
	}
	switch result := string(j.Result); {
	case result == "" || result == "null":
	case e.result == "":
		e.result = result
	case e.result != result:
		r.violateLocked("the result of %s was %s and is %s", j.ID, e.result, result)
	}
}

// findEnd finds the end that an answer tells of, or notes it as a new one.
func (k *jobRecord) findEnd(j *client.Job) *end {
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
	r.observe(j, snapshot{})
}

// retrying notes that a retry is on its way: the job may begin anew.
func (r *record) retrying(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs[id].retries++
	r.jobs[id].mustCancel = false
}

// observeEntry notes an entry of a job's output.
func (r *record) observeEntry(id string, e client.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[id]
	text := fmt.Sprintf("attempt %d %s %s", e.Attempt, e.Kind, e.Data)
	switch was, ok := k.entries[e.Seq]; {
	case !ok:
		k.entries[e.Seq] = text
		r.entries++
	case was != text:
		r.violateLocked("entry %d of %s was %q and is %q", e.Seq, id, was, text)
	}
}

// observeOutput notes a job's output, read from its beginning to the job's cursor.
func (r *record) observeOutput(id string, entries []client.Entry, cursor int64, then snapshot) {
	for i, e := range entries {
		if e.Seq != int64(i)+1 {
			r.violate("entry %d of %s stands where %d belongs", e.Seq, id, i+1)
			return
		}
		r.observeEntry(id, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int64(len(entries)) < cursor {
		r.violateLocked("%s has %d entries, and its cursor is %d", id, len(entries), cursor)
	}
	if int64(len(entries)) < then.last {
		r.violateLocked("entry %d of %s was seen and is gone: there are %d", then.last, id, len(entries))
	}
}

// jobsWhere lists the jobs that pass the test.
func (r *record) jobsWhere(test func(*jobRecord) bool) []*jobRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*jobRecord
	for _, k := range r.jobs {
		if test(k) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *jobRecord) int { return compare(a.id, b.id) })
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

// unansweredSubmissions lists the submissions whose answers never came.
func (r *record) unansweredSubmissions() []client.Submission {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []client.Submission
	for _, s := range r.unanswered {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b client.Submission) int { return compare(a.IdempotencyKey, b.IdempotencyKey) })
	return list
}

// totals is a record in numbers.
type totals struct{ jobs, ended, entries, violations int }

func (r *record) totals() totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := totals{jobs: len(r.jobs), entries: r.entries, violations: len(r.violations)}
	for _, k := range r.jobs {
		if len(k.ends) > 0 {
			t.ended++
		}
	}
	return t
}
