package sqlite

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// The table presence has a row for each unfinished job with an abandon timeout. In its column
// until is the time from which the job counts as abandoned; a presence sets a later one. The row
// is deleted when the job ends, is deleted or is asked to stop.

// StartAbandon starts a job's abandon timeout; see [ops.PresenceTx].
func (t *tx) StartAbandon(j *ops.Job) error {
	d := j.Policy.Timeouts.Abandon
	return t.q.insertPresence.id(&j.ID).int(j.N).text(j.Owner.Tenant).text(j.Owner.User).int(d.Microseconds()).time(t.now.Add(d)).run()
}

// StopAbandon ends a job's abandon timeout; see [ops.PresenceTx].
func (t *tx) StopAbandon(id job.ID) error { return t.q.deletePresence.id(&id).run() }

// RenewJob restarts the abandon timeout of a job; see [ops.PresenceTx].
func (t *tx) RenewJob(id job.ID) error { return t.q.renewJobPresence.time(t.now).id(&id).run() }

// RenewOwner restarts the abandon timeouts of an owner's jobs; see [ops.PresenceTx].
func (t *tx) RenewOwner(o job.Owner) error {
	return t.q.renewOwnerPresence.time(t.now).text(o.Tenant).text(o.User).run()
}

// Abandoned reports whether a job's abandon timeout is over; see [ops.PresenceTx].
func (t *tx) Abandoned(id job.ID) (bool, error) {
	return t.q.isAbandoned.id(&id).time(t.now).first(func(column) error { return nil })
}

// Abandonable lists jobs whose abandon timeout is over; see [store.UpkeepReader].
func (s *Store) Abandonable(ctx context.Context, after string, limit int) (jobs []job.Job, next string, err error) {
	from, err := parsePresenceCursor(after)
	if err != nil {
		return nil, "", err
	}
	now := s.Now()
	err = s.read(ctx, func(r *reader) error {
		var rows []row
		n := 0
		err := r.abandonable.int(from.until).id(&from.id).time(now).int(int64(limit)).each(func(c column) error {
			n++
			j, err := scanRow(c)
			next = formatPresenceCursor(c.int(afterJobColumns), j.ID)
			if err == nil { // an op that names the job repairs a damaged row
				rows = append(rows, j)
			}
			return nil
		})
		if n < limit {
			next = ""
		}
		if err == nil {
			err = r.completeAll(rows)
		}
		for i := range rows {
			jobs = append(jobs, rows[i].Job)
		}
		return err
	})
	return jobs, next, err
}

// presenceCursor is a position in the index presence_until.
type presenceCursor struct {
	until int64
	id    job.ID
}

func formatPresenceCursor(until int64, id job.ID) string {
	return hex.EncodeToString(append(binary.BigEndian.AppendUint64(nil, uint64(until)), id[:]...))
}

func parsePresenceCursor(text string) (at presenceCursor, err error) {
	if text == "" {
		return at, nil
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 8+len(at.id) {
		return at, errors.New("this is not a cursor of the list of abandonable jobs")
	}
	at.until = int64(binary.BigEndian.Uint64(raw))
	copy(at.id[:], raw[8:])
	return at, nil
}

// fillPresence completes the rows that migration 0004 inserted: SQL could not decode the
// policies. Their timeouts start now.
func (s *Store) fillPresence() error {
	type unfilled struct {
		id    job.ID
		after time.Duration
	}
	var list []unfilled
	err := s.q.unfilledPresence.each(func(c column) error {
		p, _ := codec.DecodePolicy(c.bytes(1)) // a damaged policy has no timeout
		list = append(list, unfilled{c.id(0), p.Timeouts.Abandon})
		return nil
	})
	for i := range list {
		if err != nil {
			return err
		}
		u := &list[i]
		if u.after == 0 {
			err = s.q.deletePresence.id(&u.id).run()
		} else {
			err = s.q.fillPresence.int(u.after.Microseconds()).time(s.Now().Add(u.after)).id(&u.id).run()
		}
	}
	return err
}
