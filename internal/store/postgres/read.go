package postgres

import (
	"context"
	"math"
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// ofOwner finds a job of an owner by its tenant, its id and its user, or of a whole tenant; see
// [job.WholeTenant].
const ofOwner = " where tenant = $1 and id = $3 and (usr = $2 or $2 = chr(1))"

// ofJob finds a job by its owner and id, with some columns of each of the two tables.
func ofJob(unfinished, ended string) string {
	return "select " + unfinished + " from jobs" + ofOwner + " and not deleted union all select " + ended + " from ended" + ofOwner
}

const (
	unfinishedJob = commonColumns + ", null::bigint, null::bigint"
	endedJob      = commonColumns + ", " + endColumns
)

var (
	readJob   = &statement{"read_job", ofJob(unfinishedJob, endedJob)}
	readInput = &statement{"read_input", "select (select body from inputs where n = j.n) from (" + ofJob("n", "n") + ") j"}
	// The length of a body that is not compressed is known without reading it.
	// $4 and $5 are the part to read of a plain body, $6 and $7 that of a sealed one.
	readResult = &statement{"read_result", `select j.state, r.content_type, octet_length(r.body)::bigint, substring(r.body from 1 for ` + strconv.Itoa(sealed.HeaderSize) + `),
		case when ` + sealed.IsSealedSQL("r.body", bytesLiteral) + ` then substring(r.body from $6::int for $7::int) else substring(r.body from $4::int for $5::int) end
		from (` + ofJob("n, state", "n, state") + ") j left join results r using (n)"}
	// The cast keeps from the indexes for lists, in which this would read all waiting jobs of the
	// owner: while the table is empty the planner prefers one of those.
	readTurn     = &statement{"read_turn", "select queue, turn, n, lane from jobs" + ofOwner + " and state::int = 2"}
	readPosition = &statement{"read_position", `select count(*) from unnest($2::text[], $3::bigint[]) l (lane, turn) cross join lateral
		(select from jobs where queue = $1 and jobs.lane = l.lane and (jobs.turn, n) < (l.turn, $4::bigint) order by jobs.turn, n limit $5::bigint) before`}
	readIdempotent = &statement{"read_idempotent", "select job, hash from idempotency where tenant = $1 and usr = $2 and key = $3"}
)

// scanJob reads a row of readJob.
func scanJob(r *record) (*ops.Job, error) {
	j := scanEnded(r).job
	if j.Damaged {
		return nil, job.Errorf(job.Internal, "the record of the job %s is damaged in the database", j.ID)
	}
	return j, nil
}

// jobParams are the parameters of statements made by ofJob.
func jobParams(o job.Owner, id job.ID, others ...[]byte) [][]byte {
	return append(ownerParams(o, id[:]), others...)
}

// Job reads one job; see [store.JobReader].
func (s *Store) Job(ctx context.Context, owner job.Owner, id job.ID) (job.Job, error) {
	var found *ops.Job
	err := s.read(ctx, readJob, func(r *record) (err error) {
		found, err = scanJob(r)
		return err
	}, jobParams(owner, id)...)
	switch {
	case err != nil:
		return job.Job{}, err
	case found == nil:
		return job.Job{}, store.NoJob(id)
	}
	return found.Job, nil
}

// Input reads a job's input; see [store.JobReader].
func (s *Store) Input(ctx context.Context, owner job.Owner, id job.ID) (input []byte, err error) {
	found := false
	err = s.read(ctx, readInput, func(r *record) (err error) {
		found = true
		input, err = s.ring.Open(sealed.Input(id), r.bytes())
		return err
	}, jobParams(owner, id)...)
	if err == nil && !found {
		err = store.NoJob(id)
	}
	return input, err
}

// Result reads a part of a job's result; see [store.JobReader].
func (s *Store) Result(ctx context.Context, owner job.Owner, id job.ID, from int64, limit int) (part job.ResultPart, err error) {
	found := false
	first := min(max(from, 0), math.MaxInt32-1)
	size := min(max(int64(limit), 0), math.MaxInt32-1-first)
	p := sealed.PartOf(first, size)
	p.Offset = min(p.Offset, math.MaxInt32-1)
	p.Bytes = min(p.Bytes, math.MaxInt32-1-p.Offset)
	err = s.read(ctx, readResult, func(r *record) (err error) {
		found = true
		if state := job.State(r.int()); state != job.Succeeded {
			return store.NoResult(state)
		}
		part.ContentType = r.text()
		stored, header, body := r.int(), r.bytes(), r.bytes()
		part.Size, part.Body = sealed.Length(header, stored), body
		if sealed.IsSealed(header) {
			part.Body, err = s.ring.OpenPart(sealed.Result(id), header, body, p.Within(header, stored))
		}
		return err
	}, jobParams(owner, id, int4Param(first+1), int4Param(size), int4Param(p.Offset+1), int4Param(p.Bytes))...)
	if err == nil && !found {
		err = store.NoJob(id)
	}
	return part, err
}

// Position counts the jobs before a queued job; see [store.JobReader]. What other tenants have
// waiting comes from the memory, so that it may be of a slightly later moment.
func (s *Store) Position(ctx context.Context, owner job.Owner, id job.ID, limit int) (int, error) {
	queue, lane, queued := "", "", false
	var turn, n int64
	err := s.read(ctx, readTurn, func(r *record) error {
		queue, turn, n, lane, queued = r.text(), r.int(), r.int(), r.text(), true
		return nil
	}, jobParams(owner, id)...)
	if err == nil && queued {
		err = s.follow(ctx)
	}
	if err != nil || !queued {
		return 0, unreadable(err)
	}
	lanes := newTable("ti")
	_, tenant, resource := ops.ParseLane(lane)
	for _, at := range s.turnsBefore(queue, fairqueue.LaneTurn{Tenant: tenant, Resource: resource, Turn: turn}) {
		lanes.text(ops.Lane(job.Queued, fairqueue.Key{Tenant: tenant}, at.Resource)).int(at.Turn)
	}
	rank := 0
	err = s.read(ctx, readPosition, func(r *record) error { rank = int(r.int()); return nil },
		[]byte(queue), lanes.params()[0], lanes.params()[1], intParam(n), intParam(int64(limit)))
	if err != nil {
		return 0, err
	}
	return min(s.position(queue, owner.Tenant, min(rank, limit)), limit), nil
}

// Idempotent finds the job of an idempotency key; see [store.JobReader].
func (s *Store) Idempotent(ctx context.Context, owner job.Owner, key string) (id job.ID, hash [32]byte, err error) {
	known := false
	err = s.read(ctx, readIdempotent, func(r *record) error {
		known, id = true, r.uuid()
		copy(hash[:], r.raw())
		return nil
	}, ownerParams(owner, []byte(key))...)
	if err == nil && !known {
		err = store.NoIdempotencyKey()
	}
	return id, hash, err
}
