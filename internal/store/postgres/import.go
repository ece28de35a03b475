package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// Source is what an import copies.
type Source struct {
	State [32]byte // changes whenever the content of the source does
	Place string   // for people
}

// ImportOptions are the options of an import.
type ImportOptions struct {
	// Restart deletes what an unfinished import of anything has stored, and begins anew.
	Restart bool
	// Unprepared is as in [Options].
	Unprepared bool
	// Ring seals what is imported; nil seals nothing.
	Ring *sealed.Ring
	// SaveBytes is how much is stored in one transaction, where the importer can save its progress;
	// 0 means 32 MiB.
	SaveBytes int
}

// Progress is how far an import is. The importer decides what its fields mean.
type Progress struct {
	Step  int
	After int64
	// Sums has the sum of the rows that were stored so far, by table.
	Sums map[string]Sum
	// Lost is what [Import.NoteLost] has noted.
	Lost []string
}

// Sum tells whether two tables have the same rows.
type Sum struct {
	Rows  int64
	Bytes int64  // of the values
	Hash  uint64 // the sum of a hash of each row
}

// States of an import; see migration 0003.
const (
	importCopying = 0
	importCopied  = 1
	importDone    = 2
)

// ErrImporting means that a move into the database has not ended. No server may use it.
var ErrImporting = errors.New("postgres: an unfinished move fills the database: run \"meanwhile move\" again, which goes on where it stopped")

// ErrOccupied means that the database has jobs already.
var ErrOccupied = errors.New("postgres: the database has jobs already: name an empty database, or create a schema and a role for this installation")

// ErrImportFromElsewhere means that a move of something else into the database has not ended.
var ErrImportFromElsewhere = errors.New("postgres: the database has a part of another move")

// ErrUnstorable means that a text has bytes that PostgreSQL cannot store: NUL, or no UTF-8.
var ErrUnstorable = errors.New("PostgreSQL cannot store it: it has a NUL or is no UTF-8; start a server on the directory again, delete what has it, and move again")

// Import fills an empty database with the rows of another store. While it has not ended, no other
// process can use the database. One goroutine uses it. After an error it can only be closed; a
// later import of the same source goes on where this one has saved its progress.
type Import struct {
	w        *conn
	progress Progress
	stored   []byte // the progress as it is stored
	state    int64
	began    bool // a transaction is open
	tables   []*importTable
	ring     *sealed.Ring
	save     int // see ImportOptions.SaveBytes
	buffered int // bytes
	unsaved  int
}

// OpenImport begins an import, or goes on with one of the same source. The schema must be up to
// date.
func OpenImport(ctx context.Context, conninfo string, from Source, o ImportOptions) (*Import, error) {
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, err
	}
	w, err := connect(ctx, config, o.Unprepared)
	if err != nil {
		return nil, err
	}
	i := &Import{w: w, tables: newImportTables(), ring: o.Ring, save: cmp.Or(o.SaveBytes, importSave)}
	if _, err = checkDurable(ctx, flush{w: w}); err == nil {
		err = i.open(ctx, from, o.Restart)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return i, nil
}

// Close closes the connection. What was not saved is lost.
func (i *Import) Close() { i.w.close() }

// Progress returns how far the import is.
func (i *Import) Progress() Progress { return i.progress }

// Copied reports whether all rows are copied; see [Import.EndCopy].
func (i *Import) Copied() bool { return i.state >= importCopied }

// Done reports whether the import has ended.
func (i *Import) Done() bool { return i.state == importDone }

// NoteLost notes something that the source has lost, for the progress that is saved next.
func (i *Import) NoteLost(what string) { i.progress.Lost = append(i.progress.Lost, what) }

var (
	selectImport = &statement{"select_import", "select source, place, state, progress from imports"}
	insertImport = &statement{"insert_import", "insert into imports (source, place, state, progress, began) values ($1::bytea, $2::text, 0, $3::bytea, " + clockMicros + ")"}
	deleteImport = &statement{"delete_import", "delete from imports"}
	// Both find out whether another process goes on with the same import.
	saveImport = &statement{"save_import", "update imports set progress = $1::bytea where progress = $2::bytea and state = 0"}
	moveImport = &statement{"move_import", "update imports set state = $1::bigint, ended = case when $1::bigint = 2 then " + clockMicros + " end where state = $2::bigint"}
	isOccupied = &statement{"is_occupied", `select exists (select from jobs) or exists (select from ended) or exists (select from records) or exists (select from idempotency)
		or exists (select from leftovers) or exists (select from deleted) or exists (select from files) or exists (select from tallies) or exists (select from queues)
		or exists (select from owners) or exists (select from inputs) or exists (select from moves where octet_length(data) > 1)`}
	emptyAll = &statement{"empty_all", `truncate jobs, ended, inputs, results, output, with_files, presence, idempotency, leftovers, deleted, records, owners, tallies,
		queues, files, file_chunks`}
	// fence makes the gap in the moves that lets each process which has the database open load its
	// memory again, and so find out that an import has begun. The rows of moves have no changes.
	fence = &statement{"fence", `with gone as (delete from moves returning seq),
			next as (update fold set seq = greatest(seq, coalesce((select max(seq) from gone), 0)) + 2, last_n = greatest(last_n, $1::bigint) returning seq, last_n)
		insert into moves (seq, at, last_n, data) select seq, ` + clockMicros + `, last_n, $2::bytea from next`}
)

// clockMicros is the database's clock in microseconds.
const clockMicros = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"

// open finds out what the database has, and begins or continues the import.
func (i *Import) open(ctx context.Context, from Source, restart bool) error {
	var source []byte
	var place string
	occupied := false
	f := flush{w: i.w}
	f.add(begin, nil)
	f.add(lockMoves, nil, intParam(movesLock))
	f.add(selectImport, func(r *record) { source, place, i.state, i.stored = r.bytes(), r.text(), r.int(), r.bytes() })
	f.add(isOccupied, func(r *record) { occupied = r.flag() })
	if err := f.run(ctx); err != nil {
		return err
	}
	unfinished := source != nil && i.state != importDone
	same := bytes.Equal(source, from.State[:])
	switch {
	case same && !restart || same && !unfinished:
		f.add(rollback, nil)
		return errors.Join(f.run(ctx), json.Unmarshal(i.stored, &i.progress))
	case unfinished && !restart:
		return fmt.Errorf("%w, of %s, whose source has other jobs or has changed since then; with --restart it is deleted, and this move begins anew", ErrImportFromElsewhere, place)
	case occupied && !unfinished:
		return ErrOccupied
	}
	i.state, i.progress = importCopying, Progress{Sums: map[string]Sum{}}
	i.stored = mustMarshal(i.progress)
	f.add(emptyAll, nil)
	f.add(deleteImport, nil)
	f.add(insertImport, nil, from.State[:], []byte(from.Place), i.stored)
	f.add(fence, nil, intParam(0), ops.AppendChanges(nil, nil))
	f.add(commit, nil)
	return f.run(ctx)
}

func mustMarshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("postgres: " + err.Error())
	}
	return raw
}

const (
	importFlush = 4 << 20  // bytes of rows that are sent at once
	importSave  = 32 << 20 // see ImportOptions.SaveBytes
)

// added sends the rows that were added, once they are many.
func (i *Import) added(ctx context.Context, bytes int) error {
	i.buffered += bytes + 100
	if i.buffered < importFlush {
		return nil
	}
	return i.send(ctx)
}

// ShouldSave reports whether many rows were added since the last [Import.Save].
func (i *Import) ShouldSave() bool { return i.unsaved+i.buffered >= i.save }

// send sends the rows that were added, in the order of the tables.
func (i *Import) send(ctx context.Context) error {
	f := flush{w: i.w}
	if !i.began {
		f.add(begin, nil)
		i.began = true
	}
	for _, t := range i.tables {
		if t.rows.empty() {
			continue
		}
		sum, err := t.sum()
		if err != nil {
			return err
		}
		i.progress.Sums[t.name] = i.progress.Sums[t.name].plus(sum)
		f.add(t.insert, nil, t.rows.params()...)
	}
	err := f.run(ctx)
	for _, t := range i.tables {
		t.rows.clear()
	}
	i.unsaved, i.buffered = i.unsaved+i.buffered, 0
	return importError(err)
}

// Save stores the rows that were added and the progress in one transaction.
func (i *Import) Save(ctx context.Context, step int, after int64) error {
	if err := i.send(ctx); err != nil {
		return err
	}
	i.progress.Step, i.progress.After = step, after
	next := mustMarshal(i.progress)
	err := i.commit(ctx, saveImport, next, i.stored)
	i.stored, i.unsaved = next, 0
	return err
}

// commit changes the row of the import and commits.
func (i *Import) commit(ctx context.Context, s *statement, params ...[]byte) error {
	f := flush{w: i.w}
	changed := false
	f.add(s, nil, params...)
	f.calls[0].done = func(tag string) { changed = tag == "UPDATE 1" }
	if err := f.run(ctx); err != nil {
		return importError(err)
	}
	if !changed {
		return errors.New("postgres: another process goes on with the same move")
	}
	i.began = false
	committed := false
	f.add(commit, nil)
	f.calls[0].done = func(tag string) { committed = tag == "COMMIT" }
	err := f.run(ctx)
	if err == nil && !committed {
		err = errors.New("postgres: the server ended the transaction with a rollback")
	}
	return importError(err)
}

// importError adds advice to an error.
func importError(err error) error {
	if codeOf(err) == "53100" {
		return fmt.Errorf("the disk of the database is full: %w", err)
	}
	return err
}

var (
	setFold = &statement{"set_fold", `update fold set bytes = (select coalesce(sum(bytes + out_bytes + $1::bigint * cursor), 0) from jobs)
		+ (select coalesce(sum(bytes + out_bytes + $1::bigint * cursor), 0) from ended) + (select coalesce(sum(bytes), 0) from owners)
		- (select coalesce(sum(bytes), 0) from applied)`}
	addBatches   = &statement{"add_batches", "insert into applied (batch, at) select batch, " + clockMicros + " from unnest($1::uuid[]) b (batch)"}
	addTokenKeys = &statement{"add_token_keys", "insert into token_keys (key, created) select key, " + clockMicros + ` from unnest($1::bytea[]) with ordinality k (key, i)
		where key not in (select key from token_keys) order by i`}
	trimTokenKeys = &statement{"trim_token_keys", "delete from token_keys where id not in (select id from token_keys order by id desc limit $1::bigint)"}
)

// Rest is what a store has besides rows.
type Rest struct {
	LastN     int64           // the highest number that a job had
	IDSkew    time.Duration   // the largest difference between the time in a job's id and its creation
	TokenKeys [][]byte        // oldest first
	Batches   []store.BatchID // the last ones, for a caller that does not know the outcome of its own
}

// EndCopy says that all rows were added. From here on a store with Options.Importing can open the
// database.
func (i *Import) EndCopy(ctx context.Context, r Rest) error {
	if err := i.send(ctx); err != nil {
		return err
	}
	keys, batches := newTable("b"), newTable("u")
	for _, k := range r.TokenKeys {
		keys.blob(k)
	}
	for _, id := range r.Batches {
		batches.uuid(id)
	}
	f := flush{w: i.w}
	if !i.began {
		f.add(begin, nil)
	}
	f.add(fence, nil, intParam(r.LastN), ops.AppendChanges(nil, nil))
	f.add(setFold, nil, intParam(entryOverhead))
	f.add(raiseIDSkew, nil, intParam(r.IDSkew.Microseconds()))
	f.add(addBatches, nil, batches.params()...)
	f.add(addTokenKeys, nil, keys.params()...)
	f.add(trimTokenKeys, nil, intParam(MaxTokenKeys))
	if err := f.run(ctx); err != nil {
		return importError(err)
	}
	err := i.commit(ctx, moveImport, intParam(importCopied), intParam(importCopying))
	i.state = importCopied
	return err
}

// End says that the import is complete: servers can use the database.
func (i *Import) End(ctx context.Context) error {
	f := flush{w: i.w}
	f.add(begin, nil)
	if err := f.run(ctx); err != nil {
		return err
	}
	err := i.commit(ctx, moveImport, intParam(importDone), intParam(importCopied))
	i.state = importDone
	return err
}
