package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// TallyCounts reads a tally; see [ops.SumTx].
func (t *tx) TallyCounts(of ops.Tally) (job.Counts, error) { return readTally(t.q.tally, of) }

// AddToTally adds to a tally, and deletes it if it has no jobs; see [ops.SumTx].
func (t *tx) AddToTally(of ops.Tally, d *ops.TallyChange) error {
	c := d.Counts
	err := t.q.addTally.text(of.Owner.Tenant).text(of.Owner.User).text(of.Name).int(d.Rows).
		int(c.Scheduled).int(c.Queued).int(c.Parked).int(c.Running).
		int(c.Succeeded).int(c.Failed).int(c.Cancelled).int(c.Expired).int(c.Retried).int(c.WaitingBytes).run()
	if err != nil || !d.Removed {
		return err
	}
	return t.q.deleteEmptyTally.text(of.Owner.Tenant).text(of.Owner.User).text(of.Name).run()
}

const tallySQL = `SELECT scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes
	FROM tallies WHERE tenant = ? AND usr = ? AND name = ?`

func readTally(q *query, of ops.Tally) (n job.Counts, err error) {
	_, err = q.text(of.Owner.Tenant).text(of.Owner.User).text(of.Name).first(func(c column) error {
		n = job.Counts{
			Scheduled: c.int(0), Queued: c.int(1), Parked: c.int(2), Running: c.int(3), Succeeded: c.int(4),
			Failed: c.int(5), Cancelled: c.int(6), Expired: c.int(7), Retried: c.int(8), WaitingBytes: c.int(9),
		}
		return nil
	})
	return n, err
}

// Tally returns the counts of a tally; see [store.RowReader].
func (s *Store) Tally(ctx context.Context, owner job.Owner, name string) (n job.Counts, err error) {
	err = s.read(ctx, func(r *reader) error {
		n, err = readTally(r.tally, ops.Tally{Owner: owner, Name: name})
		return err
	})
	return n, err
}
