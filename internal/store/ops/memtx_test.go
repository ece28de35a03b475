package ops

import (
	"cmp"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// memTx is a [Tx] without a disk. It is its own store: no batch of these tests fails.
type memTx struct {
	now       time.Time
	last      int64 // the number of the last job
	jobs      map[job.ID]*Job
	lanes     map[job.ID]string // of queued and parked jobs
	output    map[job.ID][]job.Entry
	bodies    map[job.ID][]byte
	keys      map[OwnedKey]KeyUse
	leftovers []leftover
	deletes   map[store.OwnedID]time.Time
	rows      map[RowID][]byte
	abandon   map[job.ID]time.Time
	tallies   map[Tally]job.Counts
	kept      map[job.Owner]int64
}

type leftover struct {
	OwnedKey
	until time.Time
}

func newMemTx() *memTx {
	return &memTx{
		now: time.UnixMicro(1_900_000_000_000_000), jobs: map[job.ID]*Job{}, lanes: map[job.ID]string{},
		output: map[job.ID][]job.Entry{}, bodies: map[job.ID][]byte{}, keys: map[OwnedKey]KeyUse{},
		deletes: map[store.OwnedID]time.Time{}, rows: map[RowID][]byte{}, abandon: map[job.ID]time.Time{},
		tallies: map[Tally]job.Counts{}, kept: map[job.Owner]int64{},
	}
}

func (t *memTx) Now() time.Time { return t.now }

// read returns a job for an op: a running one itself, another one as a copy.
func (t *memTx) read(j *Job) *Job {
	if j == nil || j.State == job.Running {
		return j
	}
	c := *j
	return &c
}

// save stores a job that an op has changed.
func (t *memTx) save(j *Job, lane string) error {
	delete(t.lanes, j.ID)
	if isReady(j.State) {
		t.lanes[j.ID] = lane
	}
	if j.State != job.Running {
		j = t.read(j)
		j.Lease = Lease{}
	}
	t.jobs[j.ID] = j
	return nil
}

// all returns copies of the jobs that match, in an order, and at most limit of them.
func (t *memTx) all(is func(*Job) bool, order func(a, b *Job) int, limit int) (list []*Job, err error) {
	for _, j := range t.jobs {
		if is(j) {
			list = append(list, t.read(j))
		}
	}
	slices.SortFunc(list, func(a, b *Job) int { return cmp.Or(order(a, b), cmp.Compare(a.N, b.N)) })
	return list[:min(limit, len(list))], nil
}

func byTurn(a, b *Job) int  { return cmp.Compare(a.Turn, b.Turn) }
func byRunAt(a, b *Job) int { return a.RunAt.Compare(b.RunAt) }

func (t *memTx) Find(owner job.Owner, id job.ID) (*Job, error) {
	if j := t.jobs[id]; j != nil && j.Owner == owner {
		return t.read(j), nil
	}
	return nil, nil
}

func (t *memTx) Insert(j *Job, input []byte) error {
	t.last++
	j.N, t.bodies[j.ID] = t.last, input
	return t.save(j, LaneOf(&j.Job))
}

func (t *memTx) Input(j *Job) ([]byte, error) { return t.bodies[j.ID], nil }

func (t *memTx) SaveEnd(j *Job, _ job.State, _ *job.Result) error { return t.save(j, "") }
func (t *memTx) SaveRetry(j *Job, _ job.State) error              { return t.save(j, LaneOf(&j.Job)) }
func (t *memTx) SaveLease(j *Job) error                           { return t.save(j, "") }
func (t *memTx) SaveRequeue(j *Job) error                         { return t.save(j, LaneOf(&j.Job)) }
func (t *memTx) SaveRenewal(*Job) error                           { return nil }
func (t *memTx) SaveCancelRequest(*Job) error                     { return nil }
func (t *memTx) Damaged() ([]*Job, error)                         { return nil, nil }

func (t *memTx) Repair(j *Job, _ job.State) error {
	delete(t.abandon, j.ID)
	return t.save(j, "")
}

func (t *memTx) Remove(j *Job) error {
	delete(t.jobs, j.ID)
	delete(t.lanes, j.ID)
	delete(t.output, j.ID)
	delete(t.bodies, j.ID)
	return nil
}

func (t *memTx) Running(id job.ID) (*Job, error) {
	if j := t.jobs[id]; j != nil && j.State == job.Running {
		return j, nil
	}
	return nil, nil
}

func (t *memTx) Holder(token job.Token) (*Job, error) {
	for _, j := range t.jobs {
		if j.State == job.Running && j.Lease.Token == token {
			return j, nil
		}
	}
	return nil, nil
}

func (t *memTx) Append(j *Job, entries []job.Entry, _ bool) error {
	t.output[j.ID] = append(t.output[j.ID], entries...)
	j.AddOutput(entries, t.now)
	return nil
}

func (t *memTx) AppendLast(j *Job, entries []job.Entry) error { return t.Append(j, entries, false) }

func (t *memTx) Text(j *Job, _ int) (text string, err error) {
	for _, e := range t.output[j.ID] {
		text += string(e.Data)
	}
	return text, nil
}

func (t *memTx) Entries(j *Job, _ int) ([]job.Entry, error) { return t.output[j.ID], nil }

func (t *memTx) inLane(queue, lane string, limit int) ([]*Job, error) {
	return t.all(func(j *Job) bool { return isReady(j.State) && j.Queue == queue && t.lanes[j.ID] == lane }, byTurn, limit)
}

func (t *memTx) Ready(queue, lane string, limit int) ([]*Job, error) {
	return t.inLane(queue, lane, limit)
}
func (t *memTx) Parked(queue, lane string, limit int) ([]*Job, error) {
	return t.inLane(queue, lane, limit)
}

func (t *memTx) FirstSuspect(queue string) (*Job, error) {
	list, err := t.all(func(j *Job) bool {
		lane := t.lanes[j.ID]
		return j.Queue == queue && lane != "" && lane[:1] == SuspectLanePrefix
	}, byRunAt, 1)
	if len(list) == 0 {
		return nil, err
	}
	return list[0], err
}

func (t *memTx) Due(limit int) ([]*Job, error) {
	return t.all(func(j *Job) bool { return j.State == job.Scheduled && !j.RunAt.After(t.now) }, byRunAt, limit)
}

func (t *memTx) Expired(limit int) ([]*Job, error) {
	is := func(j *Job) bool {
		by := j.QueueDeadline()
		return j.State.Waiting() && j.StartedAt.IsZero() && !by.IsZero() && !by.After(t.now)
	}
	return t.all(is, byRunAt, limit)
}

func (t *memTx) SaveReady(j *Job, lane string) error {
	whole := *t.jobs[j.ID]
	whole.State, whole.Revision, whole.Turn = j.State, j.Revision, j.Turn
	return t.save(&whole, lane)
}

func (t *memTx) Prunable(after int64, limit int) ([]*Job, error) {
	list, err := t.all(func(j *Job) bool { return j.N > after }, func(a, b *Job) int { return cmp.Compare(a.N, b.N) }, limit)
	for _, j := range list {
		j.HasRefs = len(j.Refs) > 0
	}
	return list, err
}

func (t *memTx) BodyBytes(j *Job) (int64, error) { return int64(len(t.bodies[j.ID])), nil }

func (t *memTx) KeyUse(k OwnedKey) (*KeyUse, error) {
	if use, known := t.keys[k]; known {
		return &use, nil
	}
	return nil, nil
}

func (t *memTx) InsertKey(k OwnedKey, use KeyUse) error { t.keys[k] = use; return nil }
func (t *memTx) DeleteKey(k OwnedKey) error             { delete(t.keys, k); return nil }

func (t *memTx) InsertLeftover(k OwnedKey, until time.Time) error {
	t.leftovers = append(t.leftovers, leftover{k, until})
	return nil
}

func (t *memTx) TakeLeftovers(limit int) (keys []OwnedKey, err error) {
	t.leftovers = slices.DeleteFunc(t.leftovers, func(l leftover) bool {
		take := len(keys) < limit && !l.until.After(t.now)
		if take {
			keys = append(keys, l.OwnedKey)
		}
		return take
	})
	return keys, nil
}

func (t *memTx) SaveDelete(of store.OwnedID, until time.Time) error {
	t.deletes[of] = until
	return nil
}

func (t *memTx) DeletedBy(id job.ID) (by job.Owner, known bool, err error) {
	for of := range t.deletes {
		if of.ID == id {
			return of.Owner, true, nil
		}
	}
	return by, false, nil
}

func (t *memTx) TakeDeletes(limit int) (deletes []store.OwnedID, err error) {
	for of, until := range t.deletes {
		if len(deletes) < limit && !until.After(t.now) {
			deletes = append(deletes, of)
			delete(t.deletes, of)
		}
	}
	return deletes, nil
}

func (t *memTx) RowBody(of store.RowSet, id string) ([]byte, error) {
	return t.rows[RowID{of, id}], nil
}

func (t *memTx) FirstRowBody(of store.RowSet) ([]byte, error) {
	var first RowID
	for r := range t.rows {
		if r.RowSet == of && (first.RowSet != of || r.ID < first.ID) {
			first = r
		}
	}
	return t.rows[first], nil
}

func (t *memTx) RowLength(of store.RowSet, id string) (int64, bool, error) {
	body, known := t.rows[RowID{of, id}]
	return int64(len(body)), known, nil
}

func (t *memTx) RowLengths(of store.RowSet) (rows, bytes int64, err error) {
	for r, body := range t.rows {
		if r.RowSet == of {
			rows, bytes = rows+1, bytes+int64(len(body))
		}
	}
	return rows, bytes, nil
}

func (t *memTx) PutRow(of store.RowSet, id string, body []byte) error {
	t.rows[RowID{of, id}] = body
	return nil
}

func (t *memTx) DeleteRow(of store.RowSet, id string) error {
	delete(t.rows, RowID{of, id})
	return nil
}

func (t *memTx) DeleteRows(of store.RowSet) error {
	for r := range t.rows {
		if r.RowSet == of {
			delete(t.rows, r)
		}
	}
	return nil
}

func (t *memTx) StartAbandon(j *Job) error {
	t.abandon[j.ID] = t.now.Add(j.Policy.Timeouts.Abandon)
	return nil
}

func (t *memTx) StopAbandon(id job.ID) error { delete(t.abandon, id); return nil }

func (t *memTx) RenewJob(id job.ID) error {
	if t.abandon[id] != (time.Time{}) {
		return t.StartAbandon(t.jobs[id])
	}
	return nil
}

func (t *memTx) RenewOwner(o job.Owner) error {
	for id := range t.abandon {
		if t.jobs[id].Owner == o {
			_ = t.RenewJob(id)
		}
	}
	return nil
}

func (t *memTx) Abandoned(id job.ID) (bool, error) {
	until, known := t.abandon[id]
	return known && !until.After(t.now), nil
}

func (t *memTx) TallyCounts(of Tally) (job.Counts, error) { return t.tallies[of], nil }

func (t *memTx) AddToTally(of Tally, c *TallyChange) error {
	t.tallies[of] = addCounts(t.tallies[of], c.Counts)
	return nil
}

func (t *memTx) KeptBytes(o job.Owner) (int64, error)     { return t.kept[o], nil }
func (t *memTx) AddToKept(o job.Owner, bytes int64) error { t.kept[o] += bytes; return nil }
