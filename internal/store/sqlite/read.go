package sqlite

import (
	"context"
	"errors"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// read calls f with a reader. f reads the state of one moment, which is durable when read
// returns.
func (s *Store) read(ctx context.Context, f func(*reader) error) error {
	return s.withReader(ctx, &s.readers, f, s.syncer.visible)
}

// readRows is read for an f that reads only side rows. It does not wait for later commits that
// wrote none, so that a conversation is readable while jobs append output all the time.
func (s *Store) readRows(ctx context.Context, f func(*reader) error) error {
	return s.withReader(ctx, &s.readers, f, s.syncer.visibleRows)
}

// withReader calls f with one of the readers, and returns when the last commit that f may have seen is
// durable.
func (s *Store) withReader(ctx context.Context, readers *readerPool, f func(*reader) error, visible func() uint64) error {
	r, err := readers.take(ctx)
	if err != nil {
		return err
	}
	err = r.call(f)
	readers.giveBack(r)
	// A crash must not undo what a caller saw, not even the absence of a row.
	if unsynced := s.syncer.wait(visible(), false); err == nil {
		err = unsynced
	}
	return unreadable(s.noteDamage(err))
}

// do calls f in a transaction.
func (r *reader) do(f func(*reader) error) error {
	if r.conn == nil {
		if err := r.connect(); err != nil {
			return err
		}
	}
	if err := r.begin.run(); err != nil {
		return err
	}
	err := f(r)
	if end := r.end.run(); err == nil {
		err = end
	}
	return err
}

// unreadable converts a database error to an error for callers.
func unreadable(err error) error {
	var known *job.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return job.Wrapf(job.Unavailable, err, "the store cannot be read")
}

// ofOwner finds a job of an owner by its tenant, its id and its user, or of a whole tenant; see
// [job.WholeTenant]. The index has all three, so a job of another user costs as little as none.
const ofOwner = "tenant = ?1 AND id = ?2 AND (usr = ?3 OR ?3 = char(1))"

func (r *reader) find(owner job.Owner, id job.ID) (j row, err error) {
	j, _, err = r.findWithTail(owner, id)
	return j, err
}

// findWithTail finds a job, and the part of its output that is not in its log. It gets the tail
// view before it reads the first row. That read fixes the moment of the transaction, so entries
// that left the tail before it are in the log.
func (r *reader) findWithTail(owner job.Owner, id job.ID) (j row, view tailView, err error) {
	view = r.tailViews.view(id)
	found, err := r.job.text(owner.Tenant).id(&id).text(owner.User).first(func(c column) error {
		j, err = scanRow(c)
		return err
	})
	switch {
	case errors.Is(err, errDamagedRow):
		return j, view, job.Wrapf(job.Internal, err, "the record of the job %s is damaged on the server's disk", id)
	case err == nil && !found:
		return j, view, store.NoJob(id)
	case err != nil:
		return j, view, err
	}
	view, err = r.complete(&j, view)
	return j, view, err
}

// complete sets the cursor, bytes and progress of a running job from its log, or from the tail
// view if that is newer. It returns the view if its entries are not in the log.
func (r *reader) complete(j *row, view tailView) (tailView, error) {
	if j.State != job.Running {
		return tailView{}, nil
	}
	_, err := r.outputEnd.int(j.n).first(func(c column) error {
		j.Cursor, j.OutputBytes = c.int(0), c.int(1)
		return nil
	})
	// The entries of the view have reached the log since it was taken.
	if view.cursor <= j.Cursor {
		return tailView{}, err
	}
	j.Cursor, j.OutputBytes, j.Progress = view.cursor, view.total, view.progress
	return view, err
}

// completeAll completes jobs whose rows were read before their tail views. If a job has ended
// since, it uses only the log.
func (r *reader) completeAll(page []row) (err error) {
	for i := range page {
		if j := &page[i]; err == nil && j.State == job.Running {
			_, err = r.complete(j, r.tailViews.view(j.ID))
		}
	}
	return err
}

// Job reads one job; see [store.JobReader].
func (s *Store) Job(ctx context.Context, owner job.Owner, id job.ID) (j job.Job, err error) {
	err = s.read(ctx, func(r *reader) error {
		found, err := r.find(owner, id)
		j = found.Job
		return err
	})
	return j, err
}

// Input reads a job's input; see [store.JobReader].
func (s *Store) Input(ctx context.Context, owner job.Owner, id job.ID) (input []byte, err error) {
	err = s.read(ctx, func(r *reader) error {
		j, err := r.find(owner, id)
		if err != nil {
			return err
		}
		_, err = r.input.int(j.n).first(func(c column) (err error) {
			input, err = r.ring.Open(sealed.Input(id), c.bytes(0))
			return err
		})
		return err
	})
	return input, err
}

// Result reads a part of a job's result; see [store.JobReader].
func (s *Store) Result(ctx context.Context, owner job.Owner, id job.ID, from int64, limit int) (part job.ResultPart, err error) {
	err = s.read(ctx, func(r *reader) error {
		j, err := r.find(owner, id)
		if err != nil {
			return err
		}
		if j.State != job.Succeeded {
			return store.NoResult(j.State)
		}
		var first []byte
		var stored int64
		_, err = r.result.int(int64(limit)).int(j.n).first(func(c column) (err error) {
			stored, first = c.int(1), c.bytes(2)
			part = job.ResultPart{ContentType: c.text(0), Size: sealed.Length(first, stored)}
			part.Body, err = r.ring.Open(sealed.Result(id), c.bytes(3))
			return err
		})
		if err != nil || from == 0 && part.Size <= int64(limit) {
			return err
		}
		size := min(int64(limit), part.Size-from)
		if !sealed.IsSealed(first) {
			part.Body, err = r.resultBytes(j.n, from, size)
			return err
		}
		p := sealed.PartOf(from, size).Within(first, stored)
		chunks, err := r.resultBytes(j.n, p.Offset, p.Bytes)
		if err == nil {
			part.Body, err = r.ring.OpenPart(sealed.Result(id), first, chunks, p)
		}
		return err
	})
	return part, err
}

// resultBytes reads size stored bytes of a result. It copies no page before them.
func (r *reader) resultBytes(n, from, size int64) ([]byte, error) {
	if size <= 0 {
		return nil, nil
	}
	blob, err := r.conn.OpenBlob("main", "results", "body", n, false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = blob.Close() }() // it was only read
	part := make([]byte, size)
	if _, err := blob.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(blob, part)
	return part, err
}

// Output reads a job and its log; see [store.JobReader].
func (s *Store) Output(ctx context.Context, owner job.Owner, id job.ID, after int64, maxBytes int) (j job.Job, entries []job.Entry, err error) {
	err = s.read(ctx, func(r *reader) error {
		found, view, err := r.findWithTail(owner, id)
		if j = found.Job; err != nil || j.Cursor <= after {
			return err
		}
		log := &outputPage{after: after, bytesLeft: maxBytes}
		err = readEntries(r.output, jobLog{r.ring, id, found.n}, view, log)
		entries = log.entries
		return err
	})
	return j, entries, err
}

// entryOverhead is the number of bytes that each entry adds to the size of its data when a limit
// of bytes is checked. Reading many small entries takes time too.
const entryOverhead = 64

// outputPage collects entries after a number, up to a limit of bytes.
type outputPage struct {
	entries   []job.Entry
	after     int64
	bytesLeft int
	full      bool
}

// add adds an entry, unless it is before the page or does not fit.
func (p *outputPage) add(e job.Entry) {
	if e.Seq <= p.after || p.full {
		return
	}
	if p.bytesLeft -= entryOverhead + len(e.Data); p.bytesLeft < 0 && len(p.entries) > 0 {
		p.full = true
		return
	}
	p.entries = append(p.entries, e)
}

// addBlock adds the entries of a block, given the number of its last entry.
func (p *outputPage) addBlock(block []byte, last int64) error {
	n, err := countEntries(block)
	if err != nil {
		return err
	}
	// Entries of a block have no numbers of their own: they end with the block's.
	seq := last - n
	return eachEntry(block, func(e job.Entry) {
		seq++
		e.Seq = seq
		p.add(e)
	})
}

const outputSQL = "SELECT seq, attempt, kind, events, data FROM output WHERE job = ? AND seq > ? ORDER BY seq"

// readEntries reads a page of a job's log, and of its tail view behind the log.
func readEntries(q *query, l jobLog, view tailView, p *outputPage) error {
	more, err := q.int(l.n).int(p.after).row()
	for ; more && err == nil; more, err = q.row() {
		c := column{stmt: q.stmt}
		last, kind := c.int(0), c.int(2)
		data, damage := l.open(kind, last, c.bytes(4))
		switch {
		case damage != nil:
			err = damage
		case kind != kindBlock:
			p.add(job.Entry{Seq: last, Attempt: int(c.int(1)), Kind: job.Kind(kind), Events: int(c.int(3)), Data: data})
		default:
			err = p.addBlock(data, last)
		}
		if p.full || err != nil {
			q.reset()
			return err
		}
	}
	if err == nil {
		err = p.addBlock(view.block, view.cursor)
	}
	return err
}

// Text joins the text of a job's last attempt; see [store.JobReader].
func (s *Store) Text(ctx context.Context, owner job.Owner, id job.ID, limit int) (j job.Job, text string, err error) {
	err = s.read(ctx, func(r *reader) error {
		found, view, err := r.findWithTail(owner, id)
		if j = found.Job; err != nil || j.Cursor == 0 {
			return err
		}
		text, err = readText(r.text, jobLog{r.ring, id, found.n}, view, limit)
		return err
	})
	return j, text, err
}

// Position counts the jobs before a queued job; see [store.JobReader].
func (s *Store) Position(ctx context.Context, owner job.Owner, id job.ID, limit int) (before int, err error) {
	err = s.read(ctx, func(r *reader) error {
		var queue, lane string
		var turn, n int64
		queued, err := r.turn.text(owner.Tenant).id(&id).text(owner.User).first(func(c column) error {
			queue, turn, n, lane = c.text(0), c.int(1), c.int(2), c.text(3)
			return nil
		})
		if err != nil || !queued {
			return err
		}
		rank := 0
		_, tenant, resource := ops.ParseLane(lane)
		for _, at := range s.queueViews.turnsBefore(queue, fairqueue.LaneTurn{Tenant: tenant, Resource: resource, Turn: turn}) {
			name := ops.Lane(job.Queued, fairqueue.Key{Tenant: tenant}, at.Resource)
			_, err = r.position.text(queue).text(name).int(at.Turn).int(n).int(int64(limit)).first(func(c column) error {
				rank += int(c.int(0))
				return nil
			})
			if err != nil {
				return err
			}
		}
		before = min(s.queueViews.position(queue, owner.Tenant, min(rank, limit)), limit)
		return nil
	})
	return before, err
}

// Idempotent finds the job of an idempotency key; see [store.JobReader].
func (s *Store) Idempotent(ctx context.Context, owner job.Owner, key string) (id job.ID, hash [32]byte, err error) {
	err = s.read(ctx, func(r *reader) error {
		known, err := r.idempotent.text(owner.Tenant).text(owner.User).text(key).first(func(c column) error {
			id = c.id(0)
			c.stmt.ColumnBytes(1, hash[:])
			return nil
		})
		if err == nil && !known {
			return store.NoIdempotencyKey()
		}
		return err
	})
	return id, hash, err
}
