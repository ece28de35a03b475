package postgres

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// maxVisited is how many jobs a page looks at. Its cursor continues from there. It takes a few
// milliseconds, so that lists can take turns, and a short list is never cut.
const maxVisited = 1000

// listRows is how many entries of a group a list reads at first, at most.
const listRows = 128

var (
	readIDSkew = &statement{"list_skew", "select apart from created"}
	readListed = &statement{"list_rows", "select " + unfinishedJob + " from jobs where n = any($1::bigint[]) union all select " +
		endedJob + " from ended where n = any($1::bigint[])"}
)

// List reads a page of jobs; see [store.JobReader].
func (s *Store) List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error) {
	// Lists use a part of the connections, so that no number of them delays the other reads.
	select {
	case s.lists <- struct{}{}:
		defer func() { <-s.lists }()
	case <-ctx.Done():
		return nil, next, ctx.Err()
	}
	err = s.snapshot(ctx, func(r *reader) (err error) {
		l := &list{reader: r, filter: &f}
		page, next, err = l.page(ctx)
		return err
	})
	return page, next, err
}

// list reads one page, in a snapshot that its first question begins.
type list struct {
	*reader
	filter  *job.Filter
	begun   bool
	after   job.ID // the lower bound of ids, exclusive
	sources []*source
}

// ask asks questions in one round trip.
func (l *list) ask(ctx context.Context, questions ...question) error {
	if l.begun {
		return l.reader.ask(ctx, questions...)
	}
	l.begun = true
	return l.first(ctx, questions...)
}

// page reads the jobs that the best index yields, newest first, and keeps those that pass the
// filter.
func (l *list) page(ctx context.Context) (page []job.Job, next job.ID, err error) {
	if err := l.open(ctx); err != nil {
		return nil, next, err
	}
	var selected []int64 // the numbers of the page's jobs
	for visited := 0; ; {
		want := l.filter.Limit + 1 - len(selected)
		batch, err := l.take(ctx, want)
		if err != nil {
			return nil, next, err
		}
		for i := range batch {
			c := &batch[i]
			if len(selected) == l.filter.Limit || visited >= maxVisited {
				page, err = l.jobs(ctx, selected)
				return page, next, err
			}
			// The cursor is the last job visited, whether or not the filter selects it.
			next = c.id
			visited++
			if c.passes(l.filter) {
				selected = append(selected, c.n)
			}
		}
		if len(batch) < want {
			page, err = l.jobs(ctx, selected)
			return page, job.ID{}, err
		}
	}
}

// jobs reads the selected jobs, and ends the snapshot.
func (l *list) jobs(ctx context.Context, selected []int64) ([]job.Job, error) {
	wanted := newTable("i")
	for _, n := range selected {
		wanted.int(n)
	}
	rows := map[int64]*ops.Job{}
	err := l.ask(ctx, question{readListed, wanted.params(), func(r *record) error {
		if j := scanEnded(r).job; !j.Damaged { // an op that names the job repairs a damaged row
			rows[j.N] = j
		}
		return nil
	}}, question{statement: endRead})
	var page []job.Job
	for _, n := range selected {
		if j := rows[n]; j != nil {
			page = append(page, j.Job)
		}
	}
	return page, err
}

// candidate is a job that a list looks at: what an index and its row's first columns have.
type candidate struct {
	id        job.ID
	n         int64
	createdAt time.Time
	key, code string
	queue     string
	state     job.State
	metadata  map[string]string // only of a list by metadata
}

// passes reports whether a job passes the filter.
func (c *candidate) passes(f *job.Filter) bool {
	for name, value := range f.Metadata {
		if got, ok := c.metadata[name]; !ok || got != value {
			return false
		}
	}
	return (f.Queue == "" || c.queue == f.Queue) && (f.Status == 0 || c.state == f.Status) && (f.Key == nil || c.key == *f.Key) && (f.ErrorCode == "" || c.code == f.ErrorCode) && f.MatchCreatedAt(c.createdAt)
}

// idRange returns a range of ids that contains all wanted jobs, and perhaps others. The time in
// an id differs from its job's creation by at most skew milliseconds.
func idRange(f *job.Filter, skew int64) (before, after job.ID) {
	before = f.After
	if before == (job.ID{}) {
		before = maxID
	}
	if !f.CreatedBefore.IsZero() {
		if id := idAt(f.CreatedBefore.UnixMilli() + skew + 1); string(id[:]) < string(before[:]) {
			before = id
		}
	}
	if !f.CreatedAfter.IsZero() {
		after = idAt(f.CreatedAfter.UnixMilli() - skew)
	}
	return before, after
}

// idAt returns the smallest id of a time in milliseconds, or maxID past the last id.
func idAt(ms int64) (id job.ID) {
	if ms >= 1<<48 {
		return maxID
	}
	binary.BigEndian.PutUint64(id[:], uint64(max(ms, 0))<<16)
	return id
}

// maxID sorts after every id.
var maxID = job.ID{
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}
