package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// record holds all answers that the clients received, and every contradiction between two
// of them.
type record struct {
	mu sync.Mutex
	// guarded by mu
	jobs       map[string]*jobRecord
	jobByKey   map[string]string            // idempotency key → its job
	unanswered map[string]client.Submission // idempotency key → submission without an answer
	violations []string                     // sentences
	entries    int                          // number of distinct entries
}

// jobRecord has all that answers contained about a job.
type jobRecord struct {
	id      string
	sub     client.Submission
	entries map[int64]string // entries, by number
	ends    []end            // distinct ends: at most one, plus one for each requested retry
	retries int              // requested retries, answered or not
	// mustCancel says that a cancel was acknowledged before the job ended.
	mustCancel bool
}

// end is one way in which a job ended. Two ends of one job are equal if status and time
// are equal.
type end struct {
	status client.Status
	at     time.Time
	result string // "" until an answer contains it; not all do
}

func newRecord() *record {
	return &record{jobs: map[string]*jobRecord{}, jobByKey: map[string]string{}, unanswered: map[string]client.Submission{}}
}

func (r *record) addViolationLocked(format string, args ...any) {
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// addViolation records a violation.
func (r *record) addViolation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addViolationLocked(format, args...)
}

// recordSubmission records that a submission is about to be sent. From now on its job may exist.
func (r *record) recordSubmission(s client.Submission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, acked := r.jobByKey[s.IdempotencyKey]; !acked {
		r.unanswered[s.IdempotencyKey] = s
	}
}

// recordRefusal records that a submission created no job.
func (r *record) recordRefusal(s client.Submission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unanswered, s.IdempotencyKey)
}

// recordAcknowledgement records that a submission was answered with a job.
func (r *record) recordAcknowledgement(s client.Submission, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unanswered, s.IdempotencyKey)
	if was, ok := r.jobByKey[s.IdempotencyKey]; ok && was != id {
		r.addViolationLocked("the idempotency key %s created two jobs: %s and %s", s.IdempotencyKey, was, id)
		return
	}
	r.jobByKey[s.IdempotencyKey] = id
	if r.jobs[id] == nil {
		r.jobs[id] = &jobRecord{id: id, sub: s, entries: map[int64]string{}}
	}
}

// snapshot has the known facts about a job before a request. The answer must agree with it.
// It need not agree with answers that other clients get during the request.
type snapshot struct {
	ended bool  // and no retry was requested, so this end is final
	last  int64 // number of the last known entry
}

// snapshot returns what is known about a job before a request.
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

// observe checks and records a job from an answer. then is the snapshot from before the
// request.
func (r *record) observe(j *client.Job, then snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.jobs[j.ID]
	if !j.Status.Ended() {
		// A retry during this request may have started the job again.
		if then.ended && k.retries == 0 {
			r.addViolationLocked("%s had ended as %s and is %s", j.ID, k.ends[0].status, j.Status)
		}
		return
	}
	if k.mustCancel && j.Status != client.Cancelled {
		r.addViolationLocked("the cancel of %s was acknowledged, and it ended as %s", j.ID, j.Status)
	}
	e := k.findEnd(j)
	if len(k.ends) > 1+k.retries {
		r.addViolationLocked("%s ended %d times without enough retries: %+v", j.ID, len(k.ends), k.ends)
	}
	switch result := string(j.Result); {
	case result == "" || result == "null":
	case e.result == "":
		e.result = result
	case e.result != result:
		r.addViolationLocked("the result of %s was %s and is %s", j.ID, e.result, result)
	}
}

// findEnd returns the recorded end of an answer, or records a new one.
func (k *jobRecord) findEnd(j *client.Job) *end {
	for i := range k.ends {
		if e := &k.ends[i]; e.status == j.Status && e.at.Equal(j.FinishedAt) {
			return e
		}
	}
	k.ends = append(k.ends, end{status: j.Status, at: j.FinishedAt})
	return &k.ends[len(k.ends)-1]
}

// recordCancel records the answer to a cancel.
func (r *record) recordCancel(j *client.Job) {
	r.mu.Lock()
	k := r.jobs[j.ID]
	k.mustCancel = k.mustCancel || !j.CancelRequestedAt.IsZero() || j.Status == client.Cancelled
	r.mu.Unlock()
	r.observe(j, snapshot{})
}

// recordRetry records that a retry is about to be sent. From now on the job may run again.
func (r *record) recordRetry(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs[id].retries++
	r.jobs[id].mustCancel = false
}

// observeEntry checks and records an entry of a job's output.
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
		r.addViolationLocked("entry %d of %s was %q and is %q", e.Seq, id, was, text)
	}
}

// observeOutput checks and records the whole output of a job up to its cursor.
func (r *record) observeOutput(id string, entries []client.Entry, cursor int64, then snapshot) {
	for i, e := range entries {
		if e.Seq != int64(i)+1 {
			r.addViolation("entry %d of %s is at position %d", e.Seq, id, i+1)
			return
		}
		r.observeEntry(id, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int64(len(entries)) < cursor {
		r.addViolationLocked("%s has %d entries, and its cursor is %d", id, len(entries), cursor)
	}
	if int64(len(entries)) < then.last {
		r.addViolationLocked("entry %d of %s was read before and is now missing: the log has %d", then.last, id, len(entries))
	}
}

// outputs returns the text of each attempt of a job that had any, in order.
func (r *record) outputs(k *jobRecord) (texts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := 0
	for seq := int64(1); seq <= int64(len(k.entries)); seq++ {
		var attempt int
		var kind, data, text string
		n, _ := fmt.Sscanf(k.entries[seq], "attempt %d %s %s", &attempt, &kind, &data)
		if kind == string(client.KindAttempt) {
			last = 0 // an attempt that does not count has the number of the one before
		}
		if n < 3 || kind != string(client.KindText) {
			continue
		}
		if json.Unmarshal([]byte(data), &text) != nil {
			continue
		}
		if attempt != last {
			texts, last = append(texts, ""), attempt
		}
		texts[len(texts)-1] += text
	}
	return texts
}

// jobsWhere returns the jobs for which test returns true, ordered by id.
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

// unansweredSubmissions returns the submissions without an answer, ordered by key.
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

// totals counts what the record holds.
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

// result prints the violations and returns an error if there are any.
func (r *record) result() error {
	const maxPrinted = 20
	if len(r.violations) == 0 {
		return nil
	}
	for i, b := range r.violations {
		if i == maxPrinted {
			fmt.Printf("and %d more\n", len(r.violations)-maxPrinted)
			break
		}
		fmt.Println("broken:", b)
	}
	return fmt.Errorf("%d violations", len(r.violations))
}
