package postgres

import (
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

const unfinishedSQL = "select " + commonColumns + ", " + leaseColumns + " from jobs "

// The reads of jobs. Rows of jobs that run are locked, because a batch with renewals and output
// alone does not hold the lock of the installation.
var (
	// All rows are locked in the order of their numbers, so that no two batches wait for each other.
	selectJobs = &statement{"select_jobs", unfinishedSQL + `where n = any(array(
		select n from jobs where id = any($1::uuid[]) and state = 4 union all select n from jobs where token = any($2::uuid[])
		union all select j.n from unnest($3::text[], $4::text[], $5::uuid[]) u (t, o, i) cross join lateral
			(select n from jobs where tenant = t and usr = o and id = i offset 0) j)) order by n for no key update`}
	selectEnded = &statement{"select_ended", "select j.* from " + unnest("ttu") + " u (t, o, i) cross join lateral (" +
		"select " + commonColumns + ", " + endColumns + " from ended where tenant = t and usr = o and id = i offset 0) j"}
	selectUsedIDs = &statement{"select_used_ids", "select u.* from " + unnest("ttu") + " u (t, o, i) cross join lateral (" +
		"select from ended where tenant = t and usr = o and id = i offset 0) j"}
	selectInputs = &statement{"select_inputs", "select n, body from inputs where n = any($1::bigint[])"}
	selectLane   = &statement{"select_lane", "select " + commonColumns + ", " + leaseColumns + ` , (select body from inputs i where i.n = jobs.n) from jobs
		where queue = $1::text and lane = $2::text and (turn, n) > ($3::bigint, $4::bigint) order by turn, n limit $5::bigint`}
	selectSuspect = &statement{"select_suspect", unfinishedSQL + `where n =
		(select n from jobs where queue = $1::text and lane >= '!' and lane < '"' order by run_at, n limit 1)`}
	selectDue      = &statement{"select_due", unfinishedSQL + "where due <= $1::bigint order by due, n limit $2::bigint"}
	selectExpired  = &statement{"select_expired", unfinishedSQL + "where queue_by <= $1::bigint order by queue_by, n limit $2::bigint"}
	selectPrunable = &statement{"select_prunable", `select n, id, tenant, usr, state, idem, tally, files, in_bytes, cursor, out_bytes, created, expires, bytes,
		coalesce((select length(body) from inputs i where i.n = ended.n), 0) + coalesce((select length(body) from results r where r.n = ended.n), 0),
		coalesce(position('"r":'::bytea in extra) > 0 or position('"rs":'::bytea in extra) > 0, false)::int
		from ended where n > $1::bigint order by n limit $2::bigint`}
)

// addUsedIDs adds the read of the ids of new jobs that ended jobs have: the index of unfinished
// jobs alone does not find those.
func (t *tx) addUsedIDs(submits []*store.Submit) {
	ids := newTable("ttu")
	for _, op := range submits {
		if o := op.Job.Owner; isStorable(o.Tenant + o.User) {
			ids.text(o.Tenant).text(o.User).uuid(op.Job.ID)
		}
	}
	if !ids.empty() {
		t.reads.add(selectUsedIDs, func(r *record) {
			t.usedIDs[store.OwnedID{Owner: job.Owner{Tenant: r.text(), User: r.text()}, ID: r.uuid()}] = true
		}, ids.params()...)
	}
}

// addJobs adds the read of jobs: of running ones by id, of jobs in any state by owner and id, and of
// running ones by token.
func (t *tx) addJobs(running []job.ID, ids []store.OwnedID, tokens []job.Token) {
	byID, byToken, byOwner := newTable("u"), newTable("u"), newTable("ttu")
	for _, id := range running {
		if _, known := t.running[id]; !known {
			t.running[id] = nil
			byID.uuid(id)
		}
	}
	for _, token := range tokens {
		if _, known := t.tokens[token]; !known {
			t.tokens[token] = nil
			byToken.uuid(token)
		}
	}
	for _, id := range ids {
		if _, known := t.jobs[id]; !known {
			t.jobs[id] = nil
			if isStorable(id.Owner.Tenant) && isStorable(id.Owner.User) { // otherwise there is no such job
				byOwner.text(id.Owner.Tenant).text(id.Owner.User).uuid(id.ID)
			}
		}
	}
	if !byID.empty() || !byToken.empty() || !byOwner.empty() {
		params := append(append(byID.params(), byToken.params()...), byOwner.params()...)
		t.reads.add(selectJobs, func(r *record) { t.addRow(scanUnfinished(r)) }, params...)
	}
	if !byOwner.empty() {
		t.reads.add(selectEnded, func(r *record) { t.addRow(scanEnded(r)) }, byOwner.params()...)
	}
}

// jobOf returns the job of an entry; nil for none.
func jobOf(e *entry) *ops.Job {
	if e == nil || e.place == nowhere {
		return nil
	}
	return e.job
}

// Find reads a job of an owner; see [ops.JobTx].
func (t *tx) Find(owner job.Owner, id job.ID) (*ops.Job, error) {
	of := store.OwnedID{Owner: owner, ID: id}
	if _, known := t.jobs[of]; !known {
		t.addJobs(nil, []store.OwnedID{of}, nil)
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return jobOf(t.jobs[of]), nil
}

// Running reads a running job; see [ops.LeaseTx].
func (t *tx) Running(id job.ID) (*ops.Job, error) {
	if _, known := t.running[id]; !known {
		t.addJobs([]job.ID{id}, nil, nil)
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return jobOf(t.running[id]), nil
}

// Holder reads the running job of a token; see [ops.LeaseTx].
func (t *tx) Holder(token job.Token) (*ops.Job, error) {
	if _, known := t.tokens[token]; !known {
		t.addJobs(nil, nil, []job.Token{token})
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return jobOf(t.tokens[token]), nil
}

// Input reads a job's input; see [ops.JobTx].
func (t *tx) Input(j *ops.Job) ([]byte, error) {
	e := t.byN[j.N]
	if !e.hasInput {
		t.reads.add(selectInputs, func(r *record) { e.setInput(t.s.ring, r.bytesAt(1)) }, int64s(j.N))
		if err := t.read(); err != nil {
			return nil, err
		}
		e.hasInput = true
	}
	return e.input, e.inputErr
}

// readRange reads unfinished jobs by a condition that pending writes could change: those are
// written first.
func (t *tx) readRange(s *statement, params ...[]byte) (list []*ops.Job, err error) {
	t.writePending()
	t.reads.add(s, func(r *record) { list = append(list, t.addRow(scanUnfinished(r)).job) }, params...)
	return list, t.read()
}

// FirstSuspect reads the first parked suspect of a queue; see [ops.LineTx].
func (t *tx) FirstSuspect(queue string) (*ops.Job, error) {
	list, err := t.readRange(selectSuspect, []byte(queue))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// Due reads scheduled jobs that are due; see [ops.LineTx].
func (t *tx) Due(limit int) ([]*ops.Job, error) {
	return t.readRange(selectDue, intParam(t.now.UnixMicro()), intParam(int64(limit)))
}

// Expired reads waiting jobs past their queue deadline; see [ops.LineTx].
func (t *tx) Expired(limit int) ([]*ops.Job, error) {
	return t.readRange(selectExpired, intParam(t.now.UnixMicro()), intParam(int64(limit)))
}

// Prunable reads ended jobs in the order of their numbers; see [ops.RetentionTx].
func (t *tx) Prunable(after int64, limit int) (list []*ops.Job, err error) {
	t.writePending()
	t.reads.add(selectPrunable, func(r *record) {
		j := &ops.Job{N: r.int()}
		j.ID = r.uuid()
		j.Owner = job.Owner{Tenant: r.text(), User: r.text()}
		j.State, j.IdempotencyKey, j.Tally = job.State(r.int()), r.text(), r.text()
		j.FileCount = int(r.int())
		j.InputBytes, j.Cursor, j.OutputBytes = r.int(), r.int(), r.int()
		j.CreatedAt, j.ExpiresAt = r.time(), r.time()
		p := &prunable{bytes: r.int(), bodyBytes: r.int()}
		j.HasRefs = r.int() == 1
		t.prunable[j.N] = p
		list = append(list, j)
	}, intParam(after), intParam(int64(limit)))
	return list, t.read()
}

// BodyBytes is the size of a job's bodies; see [ops.RetentionTx].
func (t *tx) BodyBytes(j *ops.Job) (int64, error) { return t.prunable[j.N].bodyBytes, nil }

// int64s returns an array of integers as a parameter.
func int64s(list ...int64) []byte {
	var a array
	a.begin(pgtype.Int8OID)
	for _, v := range list {
		a.int(v)
	}
	return a.value()
}
