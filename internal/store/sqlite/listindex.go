package sqlite

import (
	"math/bits"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// listQueries are the statements and the memory with which a reader lists jobs.
type listQueries struct {
	row                    *query
	ofTenant               *query // jobs_id: all jobs of a tenant
	byQueue, byKey, byCode groupIndex
	runningBits            *query
	runningRow             *query

	visited int                   // jobs and entries of indexes that this page has looked at
	running map[int64]immutableID // the running jobs of the last page, by row number
}

// groupIndex reads an index whose entries are in groups of one queue and state, and within a
// group in the order of ids.
type groupIndex struct {
	ids       *query // the entries of a group, newest first
	nextQueue *query // the first queue with entries after a queue
}

func groupIDs(index, prefix string) string {
	return "SELECT id, n FROM jobs INDEXED BY " + index + " WHERE tenant = ? AND usr = ? AND " + prefix +
		"queue = ? AND state = ? AND state <> 4 AND id < ? AND id > ? ORDER BY id DESC LIMIT ?"
}

func nextQueue(index, prefix string) string {
	return "SELECT queue FROM jobs INDEXED BY " + index + " WHERE tenant = ? AND usr = ? AND " + prefix +
		"queue > ? AND state <> 4 ORDER BY queue LIMIT 1"
}

// indexEntry is a job that a list looks at.
type indexEntry struct {
	id job.ID
	n  int64
}

// idBounds are exclusive bounds of ids.
type idBounds struct{ before, after job.ID }

// candidates yields jobs newest first, each once. They contain all jobs that pass the filter.
type candidates interface {
	next() (c indexEntry, more bool, err error)
}

// candidates chooses the index for a filter. Jobs with an empty key are in no index of keys. The
// indexes of groups are per user: a list of a whole tenant looks at all of its jobs.
func (r *reader) candidates(f *job.Filter, bounds idBounds) (candidates, error) {
	hasKey := f.Key != nil && *f.Key != ""
	switch {
	case f.Owner.IsWholeTenant():
		all := func(b idBounds, limit int) *query {
			return r.ofTenant.text(f.Owner.Tenant).id(&b.before).id(&b.after).int(int64(limit))
		}
		return &merge{sources: []*idSource{{bind: all, bounds: bounds, size: maxRead, maxSize: maxRead, more: true}}}, nil
	case hasKey && f.ErrorCode != "":
		// No index has both. Each one skips what the other does not have.
		keyed, err := r.merged(&r.byKey, *f.Key, f, bounds)
		if err != nil {
			return nil, err
		}
		coded, err := r.merged(&r.byCode, f.ErrorCode, f, bounds)
		return &intersection{a: keyed, b: coded, visited: &r.visited}, err
	case hasKey:
		return r.merged(&r.byKey, *f.Key, f, bounds)
	case f.ErrorCode != "":
		return r.merged(&r.byCode, f.ErrorCode, f, bounds)
	}
	return r.merged(&r.byQueue, "", f, bounds)
}

// merged merges the groups of an index that the filter may select, and the running jobs. value
// is the key or code of the index, "" if it has none.
func (r *reader) merged(x *groupIndex, value string, f *job.Filter, bounds idBounds) (*merge, error) {
	m := &merge{}
	if f.Status == 0 || f.Status == job.Running {
		list, err := r.runningJobs(f, bounds)
		if err != nil {
			return nil, err
		}
		m.sources = append(m.sources, &idSource{list: list})
	}
	groups, err := r.groups(x, value, f)
	if err != nil {
		return nil, err
	}
	size := max(maxRead/max(len(groups), 1), 1)
	for _, g := range groups {
		bind := func(b idBounds, limit int) *query {
			return x.bind(x.ids, f.Owner, value).text(g.queue).int(int64(g.state)).id(&b.before).id(&b.after).int(int64(limit))
		}
		m.sources = append(m.sources, &idSource{bind: bind, bounds: bounds, size: size, maxSize: size, more: true})
	}
	return m, nil
}

func (x *groupIndex) bind(q *query, o job.Owner, value string) *query {
	q.text(o.Tenant).text(o.User)
	if value != "" {
		q.text(value)
	}
	return q
}

// group is the jobs of one queue in one state.
type group struct {
	queue string
	state job.State
}

// groups returns the groups that may have jobs of the filter. It jumps from queue to queue in
// the index, so its cost grows with the number of queues and not with that of the jobs.
func (r *reader) groups(x *groupIndex, value string, f *job.Filter) (list []group, err error) {
	if f.Status == job.Running {
		return nil, nil
	}
	if f.Queue != "" {
		return appendGroups(nil, f.Queue, f.Status), nil
	}
	for queue := ""; ; {
		more, err := x.bind(x.nextQueue, f.Owner, value).text(queue).first(func(c column) error {
			queue = c.text(0)
			return nil
		})
		if err != nil || !more {
			return list, err
		}
		list = appendGroups(list, queue, f.Status)
	}
}

// appendGroups appends the groups of a queue: that of one state, or of all for 0.
func appendGroups(list []group, queue string, only job.State) []group {
	for _, state := range job.States() {
		if state == only || only == 0 && state != job.Running {
			list = append(list, group{queue, state})
		}
	}
	return list
}

// immutableID is the part of a running job that never changes.
type immutableID struct {
	id         job.ID
	owner      job.Owner
	queue, key string
}

// runningJobs lists the running jobs that the filter may select. It reads the row of a job only
// once in its attempt, because a row number always stands for the same job.
func (r *reader) runningJobs(f *job.Filter, bounds idBounds) (list []indexEntry, err error) {
	known := r.running
	r.running = make(map[int64]immutableID, len(known))
	err = r.runningBits.each(func(c column) error {
		for left := uint64(c.int(1)); left != 0; left &= left - 1 {
			n := c.int(0)<<6 | int64(bits.TrailingZeros64(left))
			j, ok := known[n]
			if !ok {
				if j, err = r.runningID(n); err != nil {
					return err
				}
			}
			r.running[n] = j
			if j.owner == f.Owner && (f.Queue == "" || j.queue == f.Queue) && (f.Key == nil || j.key == *f.Key) &&
				compareIDs(j.id, bounds.before) < 0 && compareIDs(j.id, bounds.after) > 0 {
				list = append(list, indexEntry{j.id, n})
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b indexEntry) int { return compareIDs(b.id, a.id) })
	return list, err
}

func (r *reader) runningID(n int64) (j immutableID, err error) {
	_, err = r.runningRow.int(n).first(func(c column) error {
		j = immutableID{c.id(0), job.Owner{Tenant: c.text(1), User: c.text(2)}, c.text(3), c.text(4)}
		return nil
	})
	return j, err
}
