package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// Each case tells the record a story that no honest server tells, but for the
// last ones, which are honest.
func TestTheRecordNoticesEveryBrokenPromise(t *testing.T) {
	at := time.Unix(1, 0)
	job := func(s client.Status, at time.Time) *client.Job {
		return &client.Job{ID: "job_1", Status: s, FinishedAt: at}
	}
	entry := func(seq int64, text string) client.Entry {
		return client.Entry{Seq: seq, Attempt: 1, Kind: client.KindText, Data: json.RawMessage(text)}
	}
	for name, c := range map[string]struct {
		story func(r *record)
		want  string
	}{
		"a key makes two jobs": {func(r *record) { r.acked(client.Submission{IdempotencyKey: "k"}, "job_2") }, "made two jobs"},
		"an ended job runs": {func(r *record) {
			r.saw(job(client.Succeeded, at), before{})
			r.saw(job(client.Running, time.Time{}), r.asks("job_1"))
		}, "had ended as succeeded and is running"},
		"a job ends twice": {func(r *record) {
			r.saw(job(client.Failed, at), before{})
			r.saw(job(client.Failed, at.Add(1)), before{})
		}, "ended 2 times"},
		"a job that was retried once ends three times": {func(r *record) {
			r.saw(job(client.Failed, at), before{})
			r.retrying("job_1")
			r.saw(job(client.Failed, at.Add(1)), before{})
			r.saw(job(client.Failed, at.Add(2)), before{})
		}, "ended 3 times"},
		"a result changes": {func(r *record) {
			j := job(client.Succeeded, at)
			j.Result = json.RawMessage("1")
			r.saw(j, before{})
			r.saw(job(client.Succeeded, at), before{}) // an answer without the result says nothing of it
			j.Result = json.RawMessage("2")
			r.saw(j, before{})
		}, "was 1 and is 2"},
		"a cancel that was acknowledged is forgotten": {func(r *record) {
			j := job(client.Running, time.Time{})
			j.CancelRequestedAt = at
			r.cancelled(j)
			r.saw(job(client.Succeeded, at), before{})
		}, "was acknowledged, and it ended as succeeded"},
		"an entry changes":  {func(r *record) { r.heard("job_1", entry(1, `"a"`)); r.heard("job_1", entry(1, `"b"`)) }, "entry 1 of job_1 was"},
		"an entry is gone":  {func(r *record) { r.heard("job_1", entry(1, `"a"`)); r.readWhole("job_1", nil, 0, r.asks("job_1")) }, "was seen and is gone"},
		"an entry is amiss": {func(r *record) { r.readWhole("job_1", []client.Entry{entry(1, "1"), entry(3, "3")}, 3, before{}) }, "stands where 2 belongs"},
		"the log is short":  {func(r *record) { r.readWhole("job_1", []client.Entry{entry(1, "1")}, 2, before{}) }, "its cursor is 2"},

		"a job that was retried ends again": {func(r *record) {
			r.saw(job(client.Failed, at), before{})
			was := r.asks("job_1")
			r.retrying("job_1")
			r.saw(job(client.Queued, time.Time{}), was)
			r.saw(job(client.Succeeded, at.Add(1)), before{})
		}, ""},
		"entries that came while the log was read": {func(r *record) {
			r.heard("job_1", entry(1, "1"))
			then := r.asks("job_1")
			r.heard("job_1", entry(2, "2"))
			r.readWhole("job_1", []client.Entry{entry(1, "1")}, 1, then)
		}, ""},
		"a cancel that came too late": {func(r *record) {
			r.cancelled(job(client.Succeeded, at))
			r.saw(job(client.Succeeded, at), r.asks("job_1"))
		}, ""},
		"an answer that never came, asked for again": {func(r *record) {
			r.asking(client.Submission{IdempotencyKey: "x"})
			r.acked(client.Submission{IdempotencyKey: "x"}, "job_9")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord()
			r.acked(client.Submission{IdempotencyKey: "k"}, "job_1")
			c.story(r)
			got := strings.Join(r.broken, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("noticed %q, want %q", got, c.want)
			}
			if len(r.open()) != 0 {
				t.Errorf("still open: %v", r.open())
			}
		})
	}
}
