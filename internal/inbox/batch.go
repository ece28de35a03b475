package inbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Row is a row of the table inbox.
type Row struct {
	ID          string // the public form of a job's id
	Owner       job.Owner
	Queue       string
	Body        []byte  // the JSON of POST /v1/jobs without the queue
	Idempotency *string // nil for none
}

// row is a row in a batch. At most one of its outcomes is set; a row without one is a job.
type row struct {
	Row
	n        int64
	id       job.ID
	key      string
	waits    bool   // it stays in the table
	refusal  error  // why it is no job
	existing job.ID // the job of its idempotency key, with a refusal
}

// batch is rows of one queue, locked by a transaction.
type batch struct {
	rows    []row
	maxBody int64 // bytes; the body of a larger row is not read
}

const (
	maxRows = 200
	// maxBytes bounds the bodies of a batch, unless a single row is larger.
	maxBytes = 8 << 20
)

// ownKey begins the idempotency keys of rows without one. No other key has the character U+0001.
const ownKey = "\x01inbox "

// request converts a row.
func (r *row) request(convert func(Row) (engine.Request, error)) (engine.Request, error) {
	request, err := convert(r.Row)
	if r.Idempotency == nil {
		request.IdempotencyKey, request.Hash = ownKey+r.ID, sha256.Sum256([]byte(r.ID))
	}
	request.ID = r.id
	return request, err
}

// idempotencyKey is the key under which a row is submitted.
func (r *row) idempotencyKey() string {
	if r.Idempotency != nil {
		return *r.Idempotency
	}
	return ownKey + r.ID
}

const (
	// lockClass is the class of the advisory locks of queues. Only its holder takes rows of the
	// queue, so that they keep their order.
	lockClass = 0x6d77_696e

	// A crash of the database may lose the deletes: then the same rows are submitted again. So the
	// commit need not wait for the disk. The plans are those of large tables.
	lockQueue = `select pg_try_advisory_xact_lock($1::integer, hashtext(current_schema() || ' ' || $2::text)), set_config(name, value, true)
		from (values ('synchronous_commit', 'off'), ('idle_in_transaction_session_timeout', '60s'), ('statement_timeout', '30s'),
			('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')) settings (name, value)`

	// The first row is read even if it is larger than a batch.
	lockRows = `with locked as (
			select n, id, tenant, usr, key, idempotency, bytes, body from inbox
			where queue = $1::text and ` + laneSQL + ` <> all ($2::text[]) order by n limit $3::integer for update skip locked),
		summed as (select *, sum(case when bytes <= $4::bigint then bytes else 0 end) over (order by n) as sofar from locked)
		select n, id, tenant, usr, key, idempotency, case when bytes <= $4::bigint then body::text end
		from summed where sofar <= $5::bigint or sofar = bytes order by n`

	// Ids that belong to jobs of other submits.
	foreignIDs = `select r.i - 1 from unnest($1::text[], $2::text[], $3::text[], $4::text[]) with ordinality r (id, tenant, usr, key, i)
		where (exists (select from jobs j where j.tenant = r.tenant and j.usr = r.usr and j.id = r.id::uuid)
			or exists (select from ended j where j.tenant = r.tenant and j.usr = r.usr and j.id = r.id::uuid))
		and not exists (select from idempotency k where k.tenant = r.tenant and k.usr = r.usr and k.key = r.key and k.job = r.id::uuid)`

	insertRefused = `insert into inbox_refused (id, tenant, usr, queue, body, idempotency, at, code, reason, job)
		select id, tenant, usr, queue, case when bytes <= $5::bigint then body end, idempotency, at, r.code, r.reason, nullif(r.job, '')
		from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) r (n, code, reason, job) join inbox using (n)`

	deleteRows = `delete from inbox where n = any ($1::bigint[])`
)

// lock locks the first rows of a queue and reads them. The batch is empty while another process
// has the queue.
func (x *Inbox) lock(ctx context.Context, tx pgx.Tx, queue string) (*batch, error) {
	b := &batch{maxBody: x.config.MaxBody(queue)}
	var free bool // the same in each row
	set, err := tx.Query(ctx, lockQueue, lockClass, queue)
	if err != nil {
		return b, err
	}
	if _, err := pgx.ForEachRow(set, []any{&free, nil}, func() error { return nil }); err != nil || !free {
		return b, err
	}
	found, err := tx.Query(ctx, lockRows, queue, x.held.lanesOf(queue), maxRows, b.maxBody, maxBytes)
	if err != nil {
		return b, err
	}
	b.rows, err = pgx.CollectRows(found, func(found pgx.CollectableRow) (r row, err error) {
		r.Queue = queue
		err = found.Scan(&r.n, &r.ID, &r.Owner.Tenant, &r.Owner.User, &r.key, &r.Idempotency, &r.Body)
		return r, err
	})
	if err != nil || len(b.rows) == 0 {
		return b, err
	}
	for i := range b.rows {
		r := &b.rows[i]
		if r.id, err = job.ParseID(r.ID); err != nil {
			return b, err // the table checks the form of ids
		}
		if r.Body == nil {
			x.settle(r, nil, job.Errorf(job.TooLarge, "the body has more than %d bytes", b.maxBody))
		}
	}
	return b, x.refuseForeign(ctx, tx, b)
}

// refuseForeign refuses rows whose id belongs to a job of the same owner that no row has made.
func (x *Inbox) refuseForeign(ctx context.Context, tx pgx.Tx, b *batch) error {
	var ids, tenants, users, keys []string
	for i := range b.rows {
		r := &b.rows[i]
		ids, tenants = append(ids, hex.EncodeToString(r.id[:])), append(tenants, r.Owner.Tenant)
		users, keys = append(users, r.Owner.User), append(keys, r.idempotencyKey())
	}
	found, err := tx.Query(ctx, foreignIDs, ids, tenants, users, keys)
	if err != nil {
		return err
	}
	list, err := pgx.CollectRows(found, pgx.RowTo[int64])
	for _, i := range list {
		x.settle(&b.rows[i], nil, job.Errorf(job.Conflict, "the id %s belongs to another job", b.rows[i].ID))
	}
	return err
}

// finish deletes the rows that do not wait, and keeps a record of the refused ones.
func (b *batch) finish(ctx context.Context, tx pgx.Tx) error {
	var done, refused []int64
	var codes, reasons, jobs []string
	for i := range b.rows {
		r := &b.rows[i]
		if r.waits {
			continue
		}
		done = append(done, r.n)
		if r.refusal != nil {
			refused, codes = append(refused, r.n), append(codes, string(job.CodeOf(r.refusal)))
			reasons, jobs = append(reasons, sentence(r.refusal)), append(jobs, "")
			if r.existing != (job.ID{}) {
				jobs[len(jobs)-1] = r.existing.String()
			}
		}
	}
	if len(refused) > 0 {
		if _, err := tx.Exec(ctx, insertRefused, refused, codes, reasons, jobs, b.maxBody); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, deleteRows, done)
	return err
}

// sentence is the message of a refusal, with the field that it is about.
func sentence(err error) string {
	e, ok := errors.AsType[*job.Error](err)
	switch {
	case !ok:
		return err.Error()
	case e.Field != "":
		return e.Field + ": " + e.Message
	}
	return e.Message
}
