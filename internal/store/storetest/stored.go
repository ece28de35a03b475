package storetest

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// stored maps each read of a store to its answer as text.
type stored map[string]string

// stored reads everything that the commits of the harness named.
func (w *harness) stored() stored {
	s := stored{}
	for _, o := range w.owners {
		for _, j := range w.listAll(job.Filter{Owner: o}) {
			w.storedJob(s, o, j)
		}
	}
	for _, k := range w.keys {
		id, hash, err := w.store.Idempotent(w.ctx, k.owner, k.key)
		s[fmt.Sprintf("key %v", k)] = fmt.Sprint(id, hash, job.CodeOf(err))
	}
	for _, set := range w.sets {
		rows, err := w.store.Rows(w.ctx, set, store.RowPage{Limit: 1000})
		s[fmt.Sprintf("rows %q", set)] = fmt.Sprintf("%q %v", rows, err)
	}
	for _, k := range w.tallies {
		n, err := w.store.Tally(w.ctx, k.owner, k.key)
		s[fmt.Sprintf("tally %v", k)] = fmt.Sprintf("%+v %v", n, err)
	}
	w.storedUpkeep(s)
	return s
}

func (w *harness) storedJob(s stored, o job.Owner, j job.Job) {
	id := j.ID.String()
	s[id] = text(j)
	input, err := w.store.Input(w.ctx, o, j.ID)
	s[id+" input"] = fmt.Sprintf("%q %v", input, err)
	result, err := w.result(o, j.ID)
	s[id+" result"] = fmt.Sprintf("%q %q %v", result.ContentType, result.Body, job.CodeOf(err))
	_, entries, err := w.store.Output(w.ctx, o, j.ID, 0, 1<<20)
	s[id+" output"] = fmt.Sprint(entryTexts(entries), err)
	_, spoken, err := w.store.Text(w.ctx, o, j.ID, 1<<20)
	s[id+" text"] = fmt.Sprintf("%q %v", spoken, err)
	position, err := w.store.Position(w.ctx, j.Owner, j.ID, 10_000)
	s[id+" position"] = fmt.Sprint(position, err)
}

func (w *harness) storedUpkeep(s stored) {
	counts, err := w.store.Counts(w.ctx)
	s["counts"] = fmt.Sprintf("%+v %v", counts, err)
	for _, which := range []store.RunningFilter{store.AllRunning, store.LapsedOnly, store.CancelOnly, store.OverrunOnly, store.SilentOnly} {
		for _, r := range w.listRunning(which) {
			s[fmt.Sprintf("running %d %s", which, r.Job.ID)] = fmt.Sprint(text(r.Job), r.Token, r.Worker)
		}
	}
	ready, expires, err := w.store.NextDue(w.ctx)
	s["next due"] = fmt.Sprint(ready.UTC(), expires.UTC(), err)
}

// sameStored fails when two states of a store differ, and shows the differences.
func (w *harness) sameStored(when string, before, after stored) {
	w.Helper()
	var lines []string
	for what, was := range before {
		if is := after[what]; is != was {
			lines = append(lines, fmt.Sprintf("%s\n    was %s\n    is  %s", what, was, is))
		}
	}
	for what, is := range after {
		if _, ok := before[what]; !ok {
			lines = append(lines, fmt.Sprintf("%s\n    was not there\n    is  %s", what, is))
		}
	}
	sort.Strings(lines)
	if len(lines) > 0 {
		w.Errorf("%s:\n  %s", when, strings.Join(lines, "\n  "))
	}
}

// text writes a job so that two jobs have the same text if and only if they are equal.
func text(j job.Job) string {
	for _, t := range []*time.Time{&j.CreatedAt, &j.RunAt, &j.StartedAt, &j.FinishedAt, &j.CancelRequestedAt, &j.ExpiresAt} {
		if t.IsZero() {
			*t = time.Time{}
			continue
		}
		*t = t.UTC().Round(0)
	}
	if len(j.Metadata) == 0 {
		j.Metadata = nil
	}
	if len(j.Usage) == 0 {
		j.Usage = nil
	}
	raw, err := json.Marshal(j)
	if err != nil {
		return fmt.Sprintf("%+v", j)
	}
	return j.State.String() + " " + string(raw)
}

// entryTexts writes entries so that two logs have the same text if and only if they are equal.
func entryTexts(entries []job.Entry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%d of attempt %d, %s×%d: %q; ", e.Seq, e.Attempt, e.Kind, e.Events, e.Data)
	}
	return b.String()
}

// ---- reads that must not fail ----

func (w *harness) job(id job.ID) job.Job {
	w.Helper()
	return w.jobOf(mine, id)
}

func (w *harness) jobOf(o job.Owner, id job.ID) job.Job {
	w.Helper()
	j, err := w.store.Job(w.ctx, o, id)
	if err != nil {
		w.Fatalf("reading a job that is there: %v", err)
	}
	return j
}

// listAll lists every page.
func (w *harness) listAll(f job.Filter) (all []job.Job) {
	w.Helper()
	f.Limit = job.MaxListPage
	for {
		page, next, err := w.store.List(w.ctx, f)
		if err != nil {
			w.Fatalf("list: %v", err)
		}
		all = append(all, page...)
		if next == (job.ID{}) {
			return all
		}
		w.wantOlder(f.After, next)
		f.After = next
	}
}

// wantOlder checks that the cursor of the next page is older than that of the last.
func (w *harness) wantOlder(last, next job.ID) {
	w.Helper()
	if last != (job.ID{}) && string(next[:]) >= string(last[:]) {
		w.Fatalf("the cursor of a list does not go on: %s after %s", next, last)
	}
}

func (w *harness) counts(q string) job.Counts {
	w.Helper()
	counts, err := w.store.Counts(w.ctx)
	if err != nil {
		w.Fatalf("counts: %v", err)
	}
	return counts[q]
}

func (w *harness) listRunning(which store.RunningFilter) (all []store.Running) {
	w.Helper()
	var after job.ID
	for {
		page, err := w.store.Running(w.ctx, which, after, 50)
		if err != nil {
			w.Fatalf("running: %v", err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].Job.ID
	}
}

func (w *harness) output(id job.ID, after int64) []job.Entry {
	w.Helper()
	_, entries, err := w.store.Output(w.ctx, mine, id, after, 1<<20)
	if err != nil {
		w.Fatalf("output: %v", err)
	}
	return entries
}

// textOf joins the text of a job's output.
func (w *harness) textOf(id job.ID) string {
	w.Helper()
	var b strings.Builder
	for _, e := range w.output(id, 0) {
		b.Write(e.Data)
	}
	return b.String()
}

func (w *harness) position(id job.ID) int {
	w.Helper()
	n, err := w.store.Position(w.ctx, mine, id, 10_000)
	if err != nil {
		w.Fatalf("position: %v", err)
	}
	return n
}

// set is a row set of the default owner.
func set(kind, parent string) store.RowSet {
	return store.RowSet{Owner: mine, Kind: kind, Parent: parent}
}

func (w *harness) rows(kind, parent string) []store.Row {
	w.Helper()
	rows, err := w.store.Rows(w.ctx, set(kind, parent), store.RowPage{Limit: 1000})
	if err != nil {
		w.Fatalf("rows: %v", err)
	}
	return rows
}

// wantGone checks that every read answers not found.
func (w *harness) wantGone(owner job.Owner, id job.ID) {
	w.Helper()
	_, err := w.store.Job(w.ctx, owner, id)
	w.wantCode(job.NotFound, err)
	_, err = w.store.Input(w.ctx, owner, id)
	w.wantCode(job.NotFound, err)
	_, err = w.result(owner, id)
	w.wantCode(job.NotFound, err)
	_, _, err = w.store.Output(w.ctx, owner, id, 0, 1<<20)
	w.wantCode(job.NotFound, err)
	_, _, err = w.store.Text(w.ctx, owner, id, 1<<20)
	w.wantCode(job.NotFound, err)
	for _, j := range w.listAll(job.Filter{Owner: owner}) {
		if j.ID == id {
			w.Errorf("a job that was deleted is still listed")
		}
	}
}

// checkCounts counts the unfinished jobs of every queue and compares them with the stored counts.
func (w *harness) checkCounts() {
	w.Helper()
	counted := map[string]job.Counts{}
	for _, o := range w.owners {
		for _, j := range w.listAll(job.Filter{Owner: o}) {
			c := counted[j.Queue]
			countWaiting(&c, j)
			counted[j.Queue] = c
		}
	}
	for _, r := range w.listRunning(store.AllRunning) {
		c := counted[r.Job.Queue]
		c.Running++
		counted[r.Job.Queue] = c
	}
	kept, err := w.store.Counts(w.ctx)
	if err != nil {
		w.Fatalf("counts: %v", err)
	}
	for q, k := range kept {
		unfinished := job.Counts{Scheduled: k.Scheduled, Queued: k.Queued, Parked: k.Parked, Running: k.Running, WaitingBytes: k.WaitingBytes}
		wantEqual(w, "the kept counts of "+q, unfinished, counted[q])
	}
	for q := range counted {
		if _, ok := kept[q]; !ok {
			w.Errorf("queue %q has jobs and no counts", q)
		}
	}
}

func countWaiting(c *job.Counts, j job.Job) {
	if j.State.Waiting() {
		c.WaitingBytes += j.InputBytes
	}
	switch j.State {
	case job.Scheduled:
		c.Scheduled++
	case job.Queued:
		c.Queued++
	case job.Parked:
		c.Parked++
	}
}

func ids(jobs []job.Job) (ids []job.ID) {
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

func claimedIDs(claimed []job.Claimed) (ids []job.ID) {
	for _, c := range claimed {
		ids = append(ids, c.Job.ID)
	}
	return ids
}
