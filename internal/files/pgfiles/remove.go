package pgfiles

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	// orphanAge is how old files are, by the database's clock, that are removed because no job
	// has them. An upload writes its rows more often, and its job is stored seconds after them.
	orphanAge = 24 * time.Hour
	// removedRows is the number of chunks that one statement deletes: 64 MiB.
	removedRows = 256

	checkEvery = time.Minute
	// sweepEvery is how often left files are looked for. The database must have answered for so
	// long before: after an outage of a day, a process that has received files first gets the
	// time to store their job.
	sweepEvery = time.Hour
)

// Remove implements [files.Store].
func (s *Store) Remove(ids ...job.ID) {
	for _, id := range ids {
		s.cache.removeIdle(id)
	}
	if err := s.remove(context.Background(), ids); err != nil {
		s.log.Warn("the files of deleted jobs could not be removed from the database; they are removed later", "jobs", len(ids), "error", err)
	}
}

// remove removes the files of jobs from the database. From the first statement on nobody finds
// them or adds to them; a removal that ends early goes on in the next sweep.
func (s *Store) remove(ctx context.Context, ids []job.ID) error {
	jobs := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		jobs[i] = uuid(id)
	}
	marked, err := collect(ctx, s, pgx.RowTo[pgtype.UUID], "update files set state = 2 where job = any($1::uuid[]) returning id", jobs)
	if err != nil || len(marked) == 0 {
		return err
	}
	return s.deleteMarked(ctx, marked)
}

// deleteMarked deletes files in state 2, in steps that are short also for large files.
func (s *Store) deleteMarked(ctx context.Context, ids []pgtype.UUID) error {
	for {
		rows, err := s.exec(ctx, "delete from file_chunks where ctid = any(array(select ctid from file_chunks where file = any($1::uuid[]) limit $2::bigint))", ids, removedRows)
		if err != nil {
			return err
		}
		if rows == 0 {
			break
		}
	}
	_, err := s.exec(ctx, "delete from files where id = any($1::uuid[]) and state = 2", ids)
	return err
}

// Run removes what other processes leave behind, until ctx ends: from the cache the files of
// jobs that are gone, and from the database the files that no job has.
func (s *Store) Run(ctx context.Context) error {
	since := time.Now() // that the database has answered each time
	for {
		timer := time.NewTimer(checkEvery/2 + rand.N(checkEvery))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := s.removeStale(ctx)
		if err == nil && time.Since(since) > sweepEvery {
			err, since = s.sweep(ctx), time.Now()
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("files that no job has any more could not be looked for", "error", err)
			since = time.Now()
		}
	}
}

// removeStale removes the copies of files that another process has removed.
func (s *Store) removeStale(ctx context.Context) error {
	idle := s.cache.idleJobs()
	gone, err := collect(ctx, s, pgx.RowTo[pgtype.UUID],
		"select id from unnest($1::uuid[]) t (id) where not exists (select from files f where f.job = t.id and f.state = 1)", idle)
	for _, id := range gone {
		s.cache.removeIdle(id.Bytes)
	}
	return err
}

// with_files has a row for each job with files, which the transaction of its submit makes.
const (
	leftJobs = `select job from files where state < 2 group by job having max(at) < ` + nowMicros + ` - $1::bigint
		and not exists (select from with_files w where w.id = files.job) limit 100`
	// It checks again: the upload may go on after all.
	markLeft = `update files set state = 2 where job = any($1::uuid[]) and state < 2 and at < ` + nowMicros + ` - $2::bigint
		and not exists (select from with_files w where w.id = files.job)`
	marked = `select id from files where state = 2 limit 100`
)

// sweep removes files that no job has, and ends removals that were broken off.
func (s *Store) sweep(ctx context.Context) error {
	for {
		jobs, err := collect(ctx, s, pgx.RowTo[pgtype.UUID], leftJobs, orphanAge.Microseconds())
		if err != nil {
			return err
		}
		if len(jobs) > 0 {
			rows, err := s.exec(ctx, markLeft, jobs, orphanAge.Microseconds())
			if err != nil {
				return err
			}
			s.log.Info("files that belonged to no job are removed", "files", rows)
		}
		marked, err := collect(ctx, s, pgx.RowTo[pgtype.UUID], marked)
		if err != nil || len(marked) == 0 {
			return err
		}
		if err := s.deleteMarked(ctx, marked); err != nil {
			return err
		}
	}
}
