package sqlite

import (
	"zombiezen.com/go/sqlite/sqlitex"
)

// orphansSQL deletes rows whose job was removed or has ended. Rows of the tail normally wait
// for a trim, which an idle store never makes; older versions left rows in the other tables.
// All three tables are small: they have rows of running jobs, or of few jobs.
const orphansSQL = `
DELETE FROM tail       WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.n = tail.job AND state = 4);
DELETE FROM presence   WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.n = presence.n AND jobs.id = presence.id AND state <= 4);
DELETE FROM with_files WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.n = with_files.n AND jobs.id = with_files.id)`

// removeOrphans deletes rows without a job, before anything is loaded. On a full disk it does
// nothing: the rows do no harm, because row numbers are not reused.
func (s *Store) removeOrphans() error {
	err := sqlitex.ExecuteScript(s.conn, orphansSQL, nil)
	if err == nil {
		// These deletes belong to no batch.
		_, err = s.q.totalChanges.first(func(c column) error { s.totalChanges = c.int(0); return nil })
		return err
	}
	if diskFull(err) {
		return nil
	}
	return err
}
