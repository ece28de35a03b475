package move

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// reads has the answer of each read of a store as text.
type reads map[string]string

func (r reads) note(what string, err error, answers ...any) {
	raw, failed := json.Marshal(answers)
	code := ""
	if err != nil {
		code = string(job.CodeOf(err)) + "!"
	}
	r[what] = fmt.Sprint(string(raw), code, failed)
}

// readAll reads everything of a store through its interface.
func (in *installation) readAll(s store.Store) reads {
	in.tb.Helper()
	r, ctx := reads{}, context.Background()
	for _, o := range in.owners {
		f := job.Filter{Owner: o, Limit: job.MaxListPage}
		for {
			page, next, err := s.List(ctx, f)
			if err != nil {
				in.tb.Fatal(err)
			}
			for i := range page {
				r.job(s, &page[i])
			}
			if next == (job.ID{}) {
				break
			}
			f.After = next
		}
		for _, key := range in.keys {
			id, hash, err := s.Idempotent(ctx, o, key)
			r.note(fmt.Sprint("key ", o, key), err, id, hash)
		}
		n, err := s.Tally(ctx, o, "import")
		r.note(fmt.Sprint("tally ", o), err, n)
	}
	for _, of := range in.sets {
		rows, err := s.Rows(ctx, of, store.RowPage{Limit: 10_000})
		r.note(fmt.Sprint("rows ", of), err, rows)
	}
	in.readUpkeep(s, r)
	return r
}

func (r reads) job(s store.Store, j *job.Job) {
	ctx, id := context.Background(), j.ID.String()
	got, err := s.Job(ctx, j.Owner, j.ID)
	r.note(id, err, utc(*j), utc(got))
	input, err := s.Input(ctx, j.Owner, j.ID)
	r.note(id+" input", err, input)
	result, err := s.Result(ctx, j.Owner, j.ID, 0, 1<<20)
	r.note(id+" result", err, result)
	_, entries, err := s.Output(ctx, j.Owner, j.ID, 0, 1<<20)
	r.note(id+" output", err, entries)
	_, entries, err = s.Output(ctx, j.Owner, j.ID, j.Cursor/2, 1<<20)
	r.note(id+" half of the output", err, entries)
	_, text, err := s.Text(ctx, j.Owner, j.ID, 1<<20)
	r.note(id+" text", err, text)
	position, err := s.Position(ctx, j.Owner, j.ID, 10_000)
	r.note(id+" position", err, position)
	versions, err := s.Versions(ctx, []store.OwnedID{{Owner: j.Owner, ID: j.ID}})
	r.note(id+" version", err, versions)
}

func (in *installation) readUpkeep(s store.Store, r reads) {
	ctx := context.Background()
	counts, err := s.Counts(ctx)
	r.note("counts", err, counts)
	for queue := range counts {
		oldest, err := s.OldestQueued(ctx, queue)
		r.note("oldest of "+queue, err, oldest.UTC())
	}
	running, err := s.Running(ctx, store.AllRunning, job.ID{}, 10_000)
	r.note("number of running", err, len(running))
	for i := range running {
		v := &running[i]
		v.Job, v.AttemptStartedAt, v.LastOutputAt = utc(v.Job), v.AttemptStartedAt.UTC(), v.LastOutputAt.UTC()
		r.note("running "+v.Job.ID.String(), nil, v)
	}
	ready, expires, err := s.NextDue(ctx)
	r.note("next due", err, ready.UTC(), expires.UTC())
	abandonable, _, err := s.Abandonable(ctx, "", 10_000)
	for i := range abandonable {
		abandonable[i] = utc(abandonable[i])
	}
	r.note("abandonable", err, abandonable)
	ids, _, err := s.WithFiles(ctx, "", 10_000)
	r.note("with files", err, ids)
	kept, err := s.Kept(ctx)
	r.note("kept", err, kept)
}

// utc returns a job whose JSON depends on its values only.
func utc(j job.Job) job.Job {
	j.CreatedAt, j.RunAt, j.StartedAt, j.FinishedAt = j.CreatedAt.UTC(), j.RunAt.UTC(), j.StartedAt.UTC(), j.FinishedAt.UTC()
	j.CancelRequestedAt, j.ExpiresAt = j.CancelRequestedAt.UTC(), j.ExpiresAt.UTC()
	if len(j.Metadata) == 0 {
		j.Metadata = nil
	}
	return j
}

// wantSame compares what two stores have answered.
func wantSame(t *testing.T, want, got reads) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%d answers, want %d", len(got), len(want))
	}
	shown := 0
	for what, answer := range want {
		if got[what] != answer && shown < 5 {
			shown++
			t.Errorf("%s\n  was %s\n  is  %s", what, answer, got[what])
		}
	}
}
