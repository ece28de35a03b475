package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// Each case gives the record some answers. Those of the last cases agree; all others
// contradict each other.
func TestRecordFindsViolations(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	job := func(s client.Status, at time.Time) *client.Job {
		return &client.Job{ID: "job_1", Status: s, FinishedAt: at}
	}
	entry := func(seq int64, text string) client.Entry {
		return client.Entry{Seq: seq, Attempt: 1, Kind: client.KindText, Data: json.RawMessage(text)}
	}
	for name, c := range map[string]struct {
		answers func(r *record)
		want    string
	}{
		"a key creates two jobs": {func(r *record) { r.recordAcknowledgement(client.Submission{IdempotencyKey: "k"}, "job_2") }, "created two jobs"},
		"an ended job runs": {func(r *record) {
			r.observe(job(client.Succeeded, at), snapshot{})
			r.observe(job(client.Running, time.Time{}), r.snapshot("job_1"))
		}, "had ended as succeeded and is running"},
		"a job ends twice": {func(r *record) {
			r.observe(job(client.Failed, at), snapshot{})
			r.observe(job(client.Failed, at.Add(1)), snapshot{})
		}, "ended 2 times"},
		"a job that was retried once ends three times": {func(r *record) {
			r.observe(job(client.Failed, at), snapshot{})
			r.recordRetry("job_1")
			r.observe(job(client.Failed, at.Add(1)), snapshot{})
			r.observe(job(client.Failed, at.Add(2)), snapshot{})
		}, "ended 3 times"},
		"a result changes": {func(r *record) {
			j := job(client.Succeeded, at)
			j.Result = json.RawMessage("1")
			r.observe(j, snapshot{})
			r.observe(job(client.Succeeded, at), snapshot{}) // an answer without a result
			j.Result = json.RawMessage("2")
			r.observe(j, snapshot{})
		}, "was 1 and is 2"},
		"an acknowledged cancel has no effect": {func(r *record) {
			j := job(client.Running, time.Time{})
			j.CancelRequestedAt = at
			r.recordCancel(j)
			r.observe(job(client.Succeeded, at), snapshot{})
		}, "was acknowledged, and it ended as succeeded"},
		"an entry changes": {func(r *record) { r.observeEntry("job_1", entry(1, `"a"`)); r.observeEntry("job_1", entry(1, `"b"`)) }, "entry 1 of job_1 was"},
		"a known entry is missing": {func(r *record) {
			r.observeEntry("job_1", entry(1, `"a"`))
			r.observeOutput("job_1", nil, 0, r.snapshot("job_1"))
		}, "was read before and is now missing"},
		"an entry is missing": {func(r *record) { r.observeOutput("job_1", []client.Entry{entry(1, "1"), entry(3, "3")}, 3, snapshot{}) }, "at position 2"},
		"the log is short":    {func(r *record) { r.observeOutput("job_1", []client.Entry{entry(1, "1")}, 2, snapshot{}) }, "its cursor is 2"},

		"a job that was retried ends again": {func(r *record) {
			r.observe(job(client.Failed, at), snapshot{})
			was := r.snapshot("job_1")
			r.recordRetry("job_1")
			r.observe(job(client.Queued, time.Time{}), was)
			r.observe(job(client.Succeeded, at.Add(1)), snapshot{})
		}, ""},
		"new entries arrive while the log is read": {func(r *record) {
			r.observeEntry("job_1", entry(1, "1"))
			then := r.snapshot("job_1")
			r.observeEntry("job_1", entry(2, "2"))
			r.observeOutput("job_1", []client.Entry{entry(1, "1")}, 1, then)
		}, ""},
		"a cancel comes after the end": {func(r *record) {
			r.recordCancel(job(client.Succeeded, at))
			r.observe(job(client.Succeeded, at), r.snapshot("job_1"))
		}, ""},
		"a submission without an answer is repeated": {func(r *record) {
			r.recordSubmission(client.Submission{IdempotencyKey: "x"})
			r.recordAcknowledgement(client.Submission{IdempotencyKey: "x"}, "job_9")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord()
			r.recordAcknowledgement(client.Submission{IdempotencyKey: "k"}, "job_1")
			c.answers(r)
			got := strings.Join(r.violations, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			if len(r.unansweredSubmissions()) != 0 {
				t.Errorf("still unanswered: %v", r.unansweredSubmissions())
			}
		})
	}
}
