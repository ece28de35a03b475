package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/dump"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// importTable has the rows of one table that are sent next.
type importTable struct {
	name, columns, letters string
	insert                 *statement
	rows                   *table
}

// The tables that an import fills row by row, as indexes of Import.tables.
const (
	importInputs = iota
	importResults
	importOutput
	importWithFiles
	importJobs
	importEnded
	importPresence
	importKeys
	importLeftovers
	importDeleted
	importRecords
	importOwners
	importTallies
	importQueues
	importFiles
	importChunks
)

const countLetters = "iiiiiiiiii"

func newImportTables() []*importTable {
	list := []*importTable{
		importInputs:    {name: "inputs", columns: "n, body", letters: "ib"},
		importResults:   {name: "results", columns: "n, content_type, body", letters: "itb"},
		importOutput:    {name: "output", columns: "n, seq, attempt, kind, events, total, data", letters: "iiiiiib"},
		importWithFiles: {name: "with_files", columns: "n, id", letters: "iu"},
		importJobs: {name: "jobs", columns: "n, " + fixedNames + ", " + movedNames + ", " + waitNames + ", " + leaseNames,
			letters: "i" + fixedLetters + movedLetters + waitLetters + leaseLetters},
		importEnded:     {name: "ended", columns: "n, " + fixedNames + ", " + movedNames + ", " + endNames, letters: "i" + fixedLetters + movedLetters + endLetters},
		importPresence:  {name: "presence", columns: "id, n, tenant, usr, after, until", letters: "uittii"},
		importKeys:      {name: "idempotency", columns: "tenant, usr, key, job, hash, until", letters: "tttubi"},
		importLeftovers: {name: "leftovers", columns: "tenant, usr, key, until", letters: "ttti"},
		importDeleted:   {name: "deleted", columns: "id, tenant, usr, until", letters: "utti"},
		importRecords:   {name: "records", columns: "tenant, usr, kind, parent, id, body", letters: "tttttb"},
		importOwners:    {name: "owners", columns: "tenant, usr, bytes", letters: "tti"},
		importTallies:   {name: "tallies", columns: "tenant, usr, name, rows, " + countNames, letters: "ttti" + countLetters},
		importQueues:    {name: "queues", columns: "name, " + countNames + ", paused", letters: "t" + countLetters + "f"},
		importFiles:     {name: "files", columns: "id, job, name, state, size, sha256, at", letters: "uutiibi"},
		importChunks:    {name: "file_chunks", columns: "file, n, data", letters: "uib"},
	}
	for _, t := range list {
		t.rows = newTable(t.letters)
		t.insert = &statement{"import_" + t.name, "insert into " + t.name + " (" + t.columns + ") " + selectUnnest(t.letters)}
	}
	return list
}

func (i *Import) row(table int) *table { return i.tables[table].rows }

// Job adds a job with its bodies; result is nil for none. Its output is added with [Import.Entry],
// before or after it.
func (i *Import) Job(ctx context.Context, j *dump.Job, input []byte, result *dump.Result) error {
	if j.State.Ended() {
		if j.ExpiresAt.IsZero() {
			j.ExpiresAt = j.FinishedAt
		}
		i.job(i.row(importEnded), j).time(j.FinishedAt).time(j.ExpiresAt)
	} else {
		t := i.job(i.row(importJobs), j).int(j.Turn).textOrNull(j.Lane, j.InLane).time(j.Due).time(j.QueueBy)
		addLease(t, &j.Job)
	}
	i.row(importInputs).int(j.N).blob(i.ring.Seal(sealed.Input(j.ID), input))
	size := len(input) + 500
	if result != nil {
		i.row(importResults).int(j.N).text(result.ContentType).blob(i.ring.Seal(sealed.Result(j.ID), result.Body))
		size += len(result.Body)
	}
	if j.FileCount > 0 {
		i.row(importWithFiles).int(j.N).uuid(j.ID)
	}
	return i.added(ctx, size)
}

// job adds the columns that both tables of jobs have.
func (i *Import) job(t *table, j *dump.Job) *table {
	bytes := jobBytes(&j.Job.Job, int(j.InputLength), len(j.Raw.Extra))
	if j.ResultLength >= 0 {
		bytes += resultOverhead + j.ResultLength
	}
	t.int(j.N).
		uuid(j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Key).text(j.Resource).
		textOrNull(j.Tally, j.Tally != "").textOrNull(j.IdempotencyKey, j.IdempotencyKey != "").
		int(int64(j.Priority)).int(int64(j.MaxAttempts)).time(j.CreatedAt).int(j.InputBytes).int(int64(j.FileCount)).
		blob(j.Raw.Policy).bytes(j.Raw.Extra).
		int(int64(j.State)).int(int64(j.Attempt)).int(int64(j.Losses)).int(int64(j.Cleared)).int(j.Revision).
		time(j.RunAt).time(j.StartedAt).time(j.CancelRequestedAt).int(j.Cursor).int(j.OutputBytes).int(bytes).
		bytes(j.Raw.Progress).bytes(j.Raw.Failure)
	if j.Raw.Code == nil {
		t.null()
	} else {
		t.text(*j.Raw.Code)
	}
	return t.bytes(j.Usage)
}

// Entry adds an entry of a job's output.
func (i *Import) Entry(ctx context.Context, j *dump.Job, e dump.Entry) error {
	i.row(importOutput).int(j.N).int(e.Seq).int(int64(e.Attempt)).int(int64(e.Kind)).int(int64(e.Events)).int(e.Total).blob(i.ring.Seal(sealed.Entry(j.ID, e.Seq), e.Data))
	return i.added(ctx, len(e.Data))
}

// Presence adds an abandon timeout.
func (i *Import) Presence(ctx context.Context, p *dump.Presence) error {
	i.row(importPresence).uuid(p.ID).int(p.N).text(p.Owner.Tenant).text(p.Owner.User).int(p.After.Microseconds()).time(p.Until)
	return i.added(ctx, 0)
}

// Key adds an idempotency key.
func (i *Import) Key(ctx context.Context, k *dump.Key) error {
	i.row(importKeys).text(k.Owner.Tenant).text(k.Owner.User).text(k.Key).uuid(k.Job).blob(k.Hash[:]).time(k.Until)
	return i.added(ctx, len(k.Key))
}

// Leftover adds a key that outlives its job.
func (i *Import) Leftover(ctx context.Context, l *dump.Leftover) error {
	i.row(importLeftovers).text(l.Owner.Tenant).text(l.Owner.User).text(l.Key).time(l.Until)
	return i.added(ctx, len(l.Key))
}

// Deleted adds the record of a delete.
func (i *Import) Deleted(ctx context.Context, d *dump.Deleted) error {
	i.row(importDeleted).uuid(d.ID).text(d.Owner.Tenant).text(d.Owner.User).time(d.Until)
	return i.added(ctx, 0)
}

// Row adds a side row.
func (i *Import) Row(ctx context.Context, r *dump.Row) error {
	i.row(importRecords).text(r.Owner.Tenant).text(r.Owner.User).text(r.Kind).text(r.Parent).text(r.ID).blob(i.ring.Seal(sealed.Row(r.RowSet, r.ID), r.Body))
	return i.added(ctx, len(r.Body)+len(r.Parent)+len(r.ID))
}

// Kept adds the bytes that an owner keeps.
func (i *Import) Kept(ctx context.Context, k *dump.Kept) error {
	i.row(importOwners).text(k.Owner.Tenant).text(k.Owner.User).int(k.Bytes)
	return i.added(ctx, 0)
}

// Tally adds the counts of a group of jobs.
func (i *Import) Tally(ctx context.Context, t *dump.Tally) error {
	addCounts(i.row(importTallies).text(t.Owner.Tenant).text(t.Owner.User).text(t.Name).int(t.Jobs), &t.Counts)
	return i.added(ctx, len(t.Name))
}

// Queue adds the counts of a queue.
func (i *Import) Queue(ctx context.Context, q *dump.Queue) error {
	addCounts(i.row(importQueues).text(q.Name), &q.Counts).flag(q.Counts.Paused)
	return i.added(ctx, 0)
}

// addCounts adds the columns of countNames.
func addCounts(t *table, c *job.Counts) *table {
	return t.int(c.Scheduled).int(c.Queued).int(c.Parked).int(c.Running).int(c.Succeeded).int(c.Failed).int(c.Cancelled).
		int(c.Expired).int(c.Retried).int(c.WaitingBytes)
}

// File adds a file of a job, whose chunks follow with [Import.Chunk].
func (i *Import) File(ctx context.Context, id [16]byte, of job.ID, name string, size int64, sha []byte) error {
	i.row(importFiles).uuid(id).uuid(of).text(name).int(1).int(size).blob(sha).time(time.Now())
	return i.added(ctx, 0)
}

// Chunk adds bytes of a file; see migration 0002.
func (i *Import) Chunk(ctx context.Context, file [16]byte, n int64, data []byte) error {
	i.row(importChunks).uuid(file).int(n).blob(data)
	return i.added(ctx, len(data))
}

// plus adds two sums.
func (s Sum) plus(t Sum) Sum { return Sum{s.Rows + t.Rows, s.Bytes + t.Bytes, s.Hash + t.Hash} }

// sum returns the sum of the rows, and refuses texts that Postgres cannot store. It hashes the
// binary forms of the values, as [importTable.sumSQL] does. NULL is the byte 255, and of bytes the
// hash is hashed.
func (t *importTable) sum() (s Sum, err error) {
	columns := make([][]byte, len(t.rows.columns)) // what is left of each
	for c := range columns {
		columns[c] = t.rows.columns[c].buf[arrayHeader:]
	}
	var row []byte
	for range t.rows.columns[0].count {
		row = row[:0]
		for c, left := range columns {
			size := int32(binary.BigEndian.Uint32(left))
			if left = left[4:]; size < 0 {
				row = append(row, 0xff)
				columns[c] = left
				continue
			}
			value := left[:size]
			columns[c] = left[size:]
			s.Bytes += int64(size)
			switch {
			case t.letters[c] == 'b':
				hash := sha256.Sum256(value)
				row = append(row, hash[:]...)
			case t.letters[c] == 't' && !isStorable(string(value)):
				return s, fmt.Errorf("the text %q in a row of %s: %w", value, t.name, ErrUnstorable)
			default:
				row = append(row, value...)
			}
		}
		hash := sha256.Sum256(row)
		s.Hash += binary.BigEndian.Uint64(hash[:]) >> 8
		s.Rows++
	}
	return s, nil
}

// sumSQL computes the sum of the stored rows.
func (t *importTable) sumSQL() string {
	var values, sizes []string
	for c, name := range strings.Split(t.columns, ", ") {
		value := map[byte]string{'i': "int8send(%s::bigint)", 't': "textsend(%s)", 'b': "sha256(%s)", 'u': "uuid_send(%s)", 'f': "boolsend(%s)"}[t.letters[c]]
		size := map[byte]string{'i': "case when %s is null then 0 else 8 end", 't': "coalesce(octet_length(%s), 0)", 'b': "coalesce(octet_length(%s), 0)",
			'u': "case when %s is null then 0 else 16 end", 'f': "case when %s is null then 0 else 1 end"}[t.letters[c]]
		values = append(values, fmt.Sprintf("coalesce("+value+", '\\xff'::bytea)", name))
		sizes = append(sizes, fmt.Sprintf(size, name))
	}
	return "select count(*), coalesce(sum(size), 0)::bigint, mod(coalesce(sum(hash), 0), 18446744073709551616)::text from (select " +
		strings.Join(sizes, " + ") + " as size, ('x' || left(encode(sha256(" + strings.Join(values, " || ") + "), 'hex'), 14))::bit(56)::bigint as hash from " + t.name + ") s"
}
