package postgres

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// An index of lists has its entries in groups of one queue and state, and within a group in the
// order of ids. So a list merges the groups that its filter selects, and reads no others.
//
// The statements of an index take $1 and $2, the owner, and $3, the value of the index's first
// column behind them: a key, a code, or nothing.
type listIndex struct{ jobs, ended listTable }

// listTable is the index on one of the two tables.
type listTable struct {
	// fill reads the next $8 entries of groups: of the queues $4 and the states $5, older than $6
	// and newer than $7. The first column is the number of the group, the last one is only read if
	// $9 is true.
	fill *statement
	// queues reads the queues with entries. It jumps from queue to queue in the index, so its cost
	// grows with their number and not with that of the jobs.
	queues *statement
}

var (
	// listOfTenant has all jobs of a tenant in one group. The other indexes are per user.
	listOfTenant = newListIndex("tenant", "$2::text is not null and $3::text is not null and g.queue is not null and g.state is not null", "")
	listByQueue  = newListIndex("queue", "usr = $2 and $3::text is not null and queue = g.queue and state = g.state", "$3::text is not null")
	listByKey    = newListIndex("key", "usr = $2 and key = $3 and key <> '' and queue = g.queue and state = g.state", "key = $3 and key <> ''")
	listByCode   = newListIndex("code", "usr = $2 and code = $3 and queue = g.queue and state = g.state", "code = $3")
)

func newListIndex(name, group, prefix string) *listIndex {
	return &listIndex{newListTable("jobs", name, group+" and not deleted", prefix), newListTable("ended", name, group, prefix)}
}

func newListTable(table, name, group, prefix string) listTable {
	t := listTable{fill: &statement{"list_" + table + "_" + name, `select g.number, c.* from
		unnest($4::text[], $5::bigint[], $6::uuid[]) with ordinality as g(queue, state, before, number)
		cross join lateral (select id, n, created, key, code, queue, state, case when $9::bool then extra end from ` + table + ` where tenant = $1 and ` + group + `
			and id < g.before and id > $7 order by id desc limit $8::bigint) c order by 1, 2 desc`}}
	if prefix != "" {
		first := "select queue from " + table + " where tenant = $1 and usr = $2 and " + prefix
		t.queues = &statement{"list_" + table + "_queues_" + name, `with recursive q(queue) as (
			(` + first + ` order by queue limit 1)
			union all select (` + first + ` and queue > q.queue order by queue limit 1) from q where q.queue is not null)
			select queue from q where queue is not null`}
	}
	return t
}

// index chooses the index for the filter. Jobs with an empty key are in no index of keys.
func (l *list) index() (x *listIndex, value string) {
	f := l.filter
	switch {
	case f.Owner.IsWholeTenant():
		return listOfTenant, ""
	case f.ErrorCode != "": // fewer jobs have a code than a key
		return listByCode, f.ErrorCode
	case f.Key != nil && *f.Key != "":
		return listByKey, *f.Key
	}
	return listByQueue, ""
}

// open finds the groups that the filter selects.
func (l *list) open(ctx context.Context) error {
	x, value := l.index()
	skew := int64(0)
	var questions []question
	if f := l.filter; !f.CreatedAfter.IsZero() || !f.CreatedBefore.IsZero() {
		questions = append(questions, question{readIDSkew, nil, func(r *record) error { skew = (r.int() + 999) / 1000; return nil }})
	}
	add := func(t *listTable, queue string, states ...job.State) {
		for _, state := range states {
			if l.filter.Status == 0 || l.filter.Status == state {
				l.sources = append(l.sources, &source{table: t, value: value, queue: queue, state: state, more: true})
			}
		}
	}
	unfinished := []job.State{job.Scheduled, job.Queued, job.Parked, job.Running}
	ended := []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Expired}
	discover := func(t *listTable, states []job.State) question {
		return question{t.queues, ownerParams(l.filter.Owner, []byte(value)), func(r *record) error { add(t, r.text(), states...); return nil }}
	}
	switch s := l.filter.Status; {
	case x == listOfTenant:
		if s == 0 || !s.Ended() {
			l.sources = append(l.sources, &source{table: &x.jobs, more: true})
		}
		if s == 0 || s.Ended() {
			l.sources = append(l.sources, &source{table: &x.ended, more: true})
		}
	case l.filter.Queue != "":
		add(&x.jobs, l.filter.Queue, unfinished...)
		add(&x.ended, l.filter.Queue, ended...)
	default:
		if !s.Ended() {
			questions = append(questions, discover(&x.jobs, unfinished))
		}
		if s == 0 || s.Ended() {
			questions = append(questions, discover(&x.ended, ended))
		}
	}
	if len(questions) > 0 {
		if err := l.ask(ctx, questions...); err != nil {
			return err
		}
	}
	var before job.ID
	before, l.after = idRange(l.filter, skew)
	// A round trip takes longer than a few entries.
	size := max((l.filter.Limit+1)*2/max(len(l.sources), 1), min(l.filter.Limit+1, 16))
	if f := l.filter; len(f.Metadata) > 0 || x == listOfTenant && (f.Queue != "" || f.Key != nil || f.Status != 0 || f.ErrorCode != "") {
		size = listRows // most of them may not pass
	}
	for _, s := range l.sources {
		s.before, s.size = before, min(size, listRows)
	}
	return nil
}

// source yields the entries of one group, newest first.
type source struct {
	table  *listTable
	value  string
	queue  string
	state  job.State
	list   []candidate // read and not yet taken
	more   bool        // the index may have entries behind list
	before job.ID      // the upper bound of the entries that are not read yet, exclusive
	size   int         // how many the next read asks for
}

// take merges the sources: it takes up to n candidates, newest first. Fewer are all that are left.
func (l *list) take(ctx context.Context, n int) (batch []candidate, err error) {
	for len(batch) < n {
		var newest *source
		kept, fill := l.sources[:0], false
		for _, s := range l.sources {
			switch {
			case len(s.list) == 0 && !s.more:
				continue // empty for good
			case len(s.list) == 0:
				fill = true
			case newest == nil || string(s.list[0].id[:]) > string(newest.list[0].id[:]):
				newest = s
			}
			kept = append(kept, s)
		}
		l.sources = kept
		switch {
		case fill:
			if err := l.fill(ctx); err != nil {
				return nil, err
			}
		case newest == nil:
			return batch, nil
		default:
			batch = append(batch, newest.list[0])
			newest.list = newest.list[1:]
		}
	}
	return batch, nil
}

// fill reads the next entries of the sources that have none left.
func (l *list) fill(ctx context.Context) error {
	byTable := map[*listTable][]*source{}
	var tables []*listTable
	for _, s := range l.sources {
		if len(s.list) == 0 && s.more {
			if byTable[s.table] == nil {
				tables = append(tables, s.table)
			}
			byTable[s.table] = append(byTable[s.table], s)
		}
	}
	var questions []question
	for _, t := range tables {
		questions = append(questions, l.fillQuestion(t, byTable[t]))
	}
	err := l.ask(ctx, questions...)
	for _, t := range tables {
		for _, s := range byTable[t] {
			if s.more = len(s.list) >= s.size; len(s.list) > 0 {
				s.before = s.list[len(s.list)-1].id
			}
			s.size = min(2*s.size, 4*listRows)
		}
	}
	return err
}

// fillQuestion reads the next entries of sources of one table, with as many for each as the first
// one wants.
func (l *list) fillQuestion(t *listTable, sources []*source) question {
	size := sources[0].size
	groups := newTable("tiu")
	for _, s := range sources {
		groups.text(s.queue).int(int64(s.state)).uuid(s.before)
		s.size = size
	}
	params := ownerParams(l.filter.Owner, []byte(sources[0].value))
	params = append(append(params, groups.params()...), l.after[:], intParam(int64(size)), []byte{boolByte(len(l.filter.Metadata) > 0)})
	return question{t.fill, params, func(r *record) error {
		s := sources[r.int()-1]
		c := candidate{id: r.uuid(), n: r.int(), createdAt: r.time(), key: r.text(), code: r.text(), queue: r.text(), state: job.State(r.int())}
		if extra := r.raw(); extra != nil {
			j := job.Job{}
			_ = codec.DecodeExtra(extra, &j) // a damaged record has no metadata
			c.metadata = j.Metadata
		}
		s.list = append(s.list, c)
		return nil
	}}
}
