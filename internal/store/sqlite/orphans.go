package sqlite

import (
	"zombiezen.com/go/sqlite/sqlitex"
)

// orphansSQL deletes rows whose job was removed or has ended. Rows of tail wait for a
// trim, which a quiet store never makes; older versions left rows of the other tables.
// All three tables are small: they are of running jobs, and of what few jobs have.
const orphansSQL = `
DELETE FROM tail       WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.n = tail.job AND state = 4);
DELETE FROM presence   WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.n = presence.n AND jobs.id = presence.id AND state <= 4);
DELETE FROM with_files WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.n = with_files.n AND jobs.id = with_files.id)`

// removeOrphans deletes rows that belong to no job any more, before anything is read.
// A full disk is no reason not to open: they do no harm, for no row number is used again.
func (s *Store) removeOrphans() error {
	err := sqlitex.ExecuteScript(s.conn, orphansSQL, nil)
	if err == nil {
		_, err = s.q.totalChanges.first(func(c column) error { s.totalChanges = c.int(0); return nil })
		return err
	}
	if diskFull(err) {
		return nil
	}
	return err
}
