package postgres

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// writes is what a batch has still to write, except the rows of jobs.
type writes struct {
	output                     *table
	keys                       []ops.OwnedKey
	leftovers                  *table
	deletes                    map[job.ID]deleteRecord
	rows                       []ops.RowID
	sets                       []store.RowSet // to be deleted, before rows are written
	tallies, emptyTallies      *table
	kept, emptyKept            *table
	presence                   map[job.ID]presenceChange
	renewedJobs, renewedOwners *table
	idSkew                     int64
}

func newWrites() *writes {
	return &writes{
		output: newTable("iiiiiib"), leftovers: newTable("ittt"), deletes: map[job.ID]deleteRecord{},
		tallies: newTable("tttiiiiiiiiiii"), emptyTallies: newTable("ttt"), kept: newTable("tti"), emptyKept: newTable("tt"),
		presence: map[job.ID]presenceChange{}, renewedJobs: newTable("u"), renewedOwners: newTable("tt"),
	}
}

var (
	insertOutput = &statement{"insert_output", `insert into output (n, seq, attempt, kind, events, total, data)
		select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])`}
	deleteKeys = &statement{"delete_keys", deleteSQL("idempotency", "tenant, usr, key", "ttt")}
	putKeys    = &statement{"put_keys", `insert into idempotency (tenant, usr, key, job, hash, until)
		select * from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::bytea[], $6::bigint[])
		on conflict (tenant, usr, key) do update set job = excluded.job, hash = excluded.hash, until = excluded.until`}
	insertLeftovers = &statement{"insert_leftovers", `insert into leftovers (until, tenant, usr, key)
		select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[])`}
	putDeletes = &statement{"put_deletes", `insert into deleted (id, tenant, usr, until)
		select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])
		on conflict (id) do update set tenant = excluded.tenant, usr = excluded.usr, until = excluded.until`}
	deleteSets = &statement{"delete_sets", deleteSQL("records", "tenant, usr, kind, parent", "tttt")}
	deleteRows = &statement{"delete_rows", deleteSQL("records", "tenant, usr, kind, parent, id", "ttttt")}
	putRows    = &statement{"put_rows", `insert into records (tenant, usr, kind, parent, id, body)
		select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])
		on conflict (tenant, usr, kind, parent, id) do update set body = excluded.body`}
	addTallies = &statement{"add_tallies", `insert into tallies as t (tenant, usr, name, rows, scheduled, queued, parked, running,
			succeeded, failed, cancelled, expired, retried, waiting_bytes)
		select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
		on conflict (tenant, usr, name) do update set rows = t.rows + excluded.rows, scheduled = t.scheduled + excluded.scheduled,
			queued = t.queued + excluded.queued, parked = t.parked + excluded.parked, running = t.running + excluded.running,
			succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed, cancelled = t.cancelled + excluded.cancelled,
			expired = t.expired + excluded.expired, retried = t.retried + excluded.retried, waiting_bytes = t.waiting_bytes + excluded.waiting_bytes`}
	deleteTallies = &statement{"delete_tallies", deleteSQL("tallies", "tenant, usr, name", "ttt") + " and rows <= 0"}
	addKept       = &statement{"add_kept", `insert into owners as o (tenant, usr, bytes)
		select * from unnest($1::text[], $2::text[], $3::bigint[])
		on conflict (tenant, usr) do update set bytes = o.bytes + excluded.bytes`}
	deleteKept     = &statement{"delete_kept", deleteSQL("owners", "tenant, usr", "tt") + " and bytes <= 0"}
	deletePresence = &statement{"delete_presence", "delete from presence where id = any($1::uuid[])"}
	putPresence    = &statement{"put_presence", `insert into presence (id, n, tenant, usr, after, until)
		select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
		on conflict (id) do update set n = excluded.n, after = excluded.after, until = excluded.until`}
	renewJobs   = &statement{"renew_jobs", "update presence set until = $2::bigint + after where id = any($1::uuid[])"}
	renewOwners = &statement{"renew_owners", "update presence set until = $3::bigint + after where " + ctidsSQL("presence", "tenant, usr", "tt")}
	raiseIDSkew = &statement{"raise_id_skew", "update created set apart = greatest(apart, $1::bigint)"}
)

// addTable adds a statement with the columns of a table, if it has rows.
func (t *tx) addTable(s *statement, rows *table, more ...[]byte) {
	if !rows.empty() {
		t.write(s, append(rows.params(), more...)...)
	}
}

func (t *tx) write(s *statement, params ...[]byte) {
	t.wrote = true
	t.reads.add(s, nil, params...)
}

// writePending adds all pending writes to the statements that are sent next, so that a read behind
// them sees them.
func (t *tx) writePending() {
	o := t.out
	// The output comes first, so that a job that is removed leaves none.
	t.addTable(insertOutput, o.output)
	t.writeJobs()
	t.writeKeys()
	t.addTable(insertLeftovers, o.leftovers)
	t.writeDeletes()
	t.writeRows()
	t.addTable(addTallies, o.tallies)
	t.addTable(deleteTallies, o.emptyTallies)
	t.addTable(addKept, o.kept)
	t.addTable(deleteKept, o.emptyKept)
	t.writePresence()
	if o.idSkew > 0 {
		t.write(raiseIDSkew, intParam(o.idSkew))
	}
	clear(t.side.output)
	t.out = newWrites()
}

func (t *tx) writeKeys() {
	freed, used := newTable("ttt"), newTable("tttubi")
	for _, k := range t.out.keys {
		s := t.side.keys[k]
		s.dirty = false
		if s.use == nil {
			freed.text(k.Owner.Tenant).text(k.Owner.User).text(k.Key)
		} else {
			used.text(k.Owner.Tenant).text(k.Owner.User).text(k.Key).uuid(s.use.Job).blob(s.use.Hash[:]).int(s.use.Until.UnixMicro())
		}
	}
	t.addTable(deleteKeys, freed)
	t.addTable(putKeys, used)
}

func (t *tx) writeDeletes() {
	rows := newTable("utti")
	for id, d := range t.out.deletes {
		rows.uuid(id).text(d.by.Tenant).text(d.by.User).int(d.until.UnixMicro())
	}
	t.addTable(putDeletes, rows)
}

func (t *tx) writeRows() {
	sets, removed, put := newTable("tttt"), newTable("ttttt"), newTable("tttttb")
	for _, of := range t.out.sets {
		t.set(of).dirty = false
		sets.text(of.Owner.Tenant).text(of.Owner.User).text(of.Kind).text(of.Parent)
	}
	for _, id := range t.out.rows {
		r := t.side.rows[id]
		r.dirty = false
		t.set(id.RowSet).changed = false
		if r.body == nil {
			removed.text(id.Owner.Tenant).text(id.Owner.User).text(id.Kind).text(id.Parent).text(id.ID)
		} else {
			put.text(id.Owner.Tenant).text(id.Owner.User).text(id.Kind).text(id.Parent).text(id.ID).blob(t.s.ring.Seal(sealed.Row(id.RowSet, id.ID), r.body))
		}
	}
	t.addTable(deleteSets, sets)
	t.addTable(deleteRows, removed)
	t.addTable(putRows, put)
}

func (t *tx) writePresence() {
	o, now := t.out, intParam(t.now.UnixMicro())
	t.addTable(renewJobs, o.renewedJobs, now)
	t.addTable(renewOwners, o.renewedOwners, now)
	stopped, started := newTable("u"), newTable("uittii")
	for id, p := range o.presence {
		if p.start == nil {
			stopped.uuid(id)
			continue
		}
		j, after := p.start, p.start.Policy.Timeouts.Abandon
		started.uuid(id).int(j.N).text(j.Owner.Tenant).text(j.Owner.User).int(after.Microseconds()).int(t.now.Add(after).UnixMicro())
	}
	t.addTable(deletePresence, stopped)
	t.addTable(putPresence, started)
}

// noteIDSkew notes the difference between a new job's id and its creation, if it is the largest
// so far.
func (t *tx) noteIDSkew(j *job.Job) {
	skew := j.CreatedAt.UnixMicro() - j.ID.Time().UnixMicro()
	if skew = max(skew, -skew) + 1000; skew > t.s.idSkew {
		t.s.idSkew = skew
		t.out.idSkew = skew
	}
}
