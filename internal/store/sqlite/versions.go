package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const versionSQL = `SELECT n, state, attempt, cursor, revision, lease, cancel_at, deleted
	FROM jobs WHERE tenant = ? AND usr = ? AND id = ?`

// Versions returns the current state of jobs; see [store.UpkeepReader].
func (s *Store) Versions(ctx context.Context, jobs []store.OwnedID) (list []store.JobVersion, err error) {
	err = s.read(ctx, func(r *reader) error {
		list = make([]store.JobVersion, 0, len(jobs))
		for i := range jobs {
			v, found, err := r.readVersion(&jobs[i])
			if err != nil {
				return err
			}
			if found {
				list = append(list, v)
			}
		}
		return nil
	})
	return list, err
}

func (r *reader) readVersion(of *store.OwnedID) (v store.JobVersion, found bool, err error) {
	view := r.tailViews.view(of.ID) // before the row, as in findWithTail
	j := row{}
	found, err = r.version.text(of.Owner.Tenant).text(of.Owner.User).id(&of.ID).first(func(c column) error {
		j.n, j.State, j.Cursor = c.int(0), job.State(c.int(1)), c.int(3)
		v = store.JobVersion{ID: of.ID, State: j.State, Attempt: int(c.int(2)), Revision: c.int(4)}
		if j.State == job.Running {
			c.stmt.ColumnBytes(5, v.Token[:])
			v.CancelRequested, v.Deleted = !c.stmt.ColumnIsNull(6), c.int(7) != 0
		}
		return nil
	})
	if err == nil && found {
		_, err = r.complete(&j, view)
		v.Cursor = j.Cursor
	}
	return v, found, err
}
