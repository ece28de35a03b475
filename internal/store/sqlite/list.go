package sqlite

import (
	"context"
	"encoding/binary"
	"runtime"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxVisited is how many jobs a page looks at. Its cursor continues from there. It takes a few
// milliseconds, so that lists can take turns, and a short list is never cut.
const maxVisited = 1000

// yieldRows is how many jobs a page looks at before it lets other goroutines run.
const yieldRows = 32

// List reads a page of jobs; see [store.JobReader].
func (s *Store) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	err = s.withReader(ctx, &s.listReaders, func(r *reader) error {
		rows, after, err := r.page(&f, s.idSkew.Load())
		for i := range rows {
			page = append(page, rows[i].Job)
		}
		next = after
		return err
	}, s.syncer.visible)
	return page, next, err
}

// page reads the jobs that the best index yields, newest first, and keeps those that pass the
// filter.
func (r *reader) page(f *job.Filter, idSkew int64) (page []row, next job.ID, err error) {
	before, after := idRange(f, idSkew)
	jobs, err := r.candidates(f, idBounds{before, after})
	if err != nil {
		return nil, next, err
	}
	r.visited = 0
	for {
		candidate, more, err := jobs.next()
		if err != nil {
			return nil, next, err
		}
		if !more {
			next = job.ID{}
			break
		}
		if len(page) == f.Limit || r.visited >= maxVisited && next != (job.ID{}) {
			break
		}
		// The cursor is the last job visited, whether or not the filter selects it.
		next = candidate.id
		// A goroutine keeps its processor for 10 ms. Other reads are done in less.
		if r.visited++; r.visited%yieldRows == 0 {
			runtime.Gosched()
		}
		_, err = r.row.int(candidate.n).first(func(c column) error {
			if !matchesRow(c, f) {
				return nil
			}
			if j, err := scanRow(c); err == nil && matchesJob(&j.Job, f) {
				page = append(page, j)
			}
			return nil
		})
		if err != nil {
			return nil, next, err
		}
	}
	return page, next, r.completeAll(page)
}

// idRange returns a range of ids that contains all wanted jobs, and perhaps others. The time in
// an id differs from its job's creation by at most idSkew milliseconds.
func idRange(f *job.Filter, idSkew int64) (before, after job.ID) {
	before = f.After
	if before == (job.ID{}) {
		before = maxID
	}
	if !f.CreatedBefore.IsZero() {
		if id := idAt(f.CreatedBefore.UnixMilli() + idSkew + 1); compareIDs(id, before) < 0 {
			before = id
		}
	}
	if !f.CreatedAfter.IsZero() {
		after = idAt(f.CreatedAfter.UnixMilli() - idSkew)
	}
	return before, after
}

// noteIDSkew stores the difference between a new job's id and its creation, if it is the
// largest so far.
func (t *tx) noteIDSkew(j *job.Job) error {
	skew := j.CreatedAt.UnixMilli() - j.ID.Time().UnixMilli()
	if skew = max(skew, -skew) + 1; skew <= t.idSkew.Load() {
		return nil
	}
	t.idSkew.Store(skew) // set before the commit, so that no list sees the job with too small a skew
	return t.q.setIDSkew.int(skew * 1000).run()
}

// idAt returns the smallest id of a time in milliseconds, or maxID past the last id.
func idAt(ms int64) (id job.ID) {
	if ms >= 1<<48 {
		return maxID
	}
	binary.BigEndian.PutUint64(id[:], uint64(max(ms, 0))<<16)
	return id
}

// matchesRow reports whether a row may pass the filter, without decoding it.
func matchesRow(c column, f *job.Filter) bool {
	return c.int(afterJobColumns) == 0 &&
		(f.Queue == "" || c.text(4) == f.Queue) &&
		(f.Key == nil || c.text(5) == *f.Key) &&
		(f.Status == 0 || job.State(c.int(7)) == f.Status) &&
		(f.ErrorCode == "" || !c.stmt.ColumnIsNull(13)) &&
		(len(f.Metadata) == 0 || !c.stmt.ColumnIsNull(16)) &&
		f.MatchCreatedAt(c.time(17))
}

// matchesJob reports whether a job passes the rest of the filter.
func matchesJob(j *job.Job, f *job.Filter) bool {
	if f.ErrorCode != "" && (j.Failure == nil || j.Failure.Code != f.ErrorCode) {
		return false
	}
	for name, value := range f.Metadata {
		if got, ok := j.Metadata[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// maxID sorts after every id.
var maxID = job.ID{
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}
