package postgres

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// runningRows is how many rows a search for running jobs reads at a time.
const runningRows = 1000

// readRunning reads running jobs after $1, up to $2. Conditions leave out most jobs that the caller does not want.
func readRunning(name, condition string) *statement {
	return &statement{"read_running_" + name, "select " + commonColumns + ", " + leaseColumns +
		" from jobs where state = 4 and id > $1 and " + condition + " order by id limit $2::bigint"}
}

var (
	readAllRunning = readRunning("all", "$3::bigint is not null")
	readLapsed     = readRunning("lapsed", "lease_until <= $3::bigint")
	readCancelled  = readRunning("cancelled", "cancel_at <= $3::bigint")
	readRunningOf  = readRunning("of", "process = $3::uuid")
	readLeases     = &statement{"read_leases", "select w.number, j.* from unnest($1::uuid[], $2::uuid[]) with ordinality as w(id, token, number) cross join lateral (select " +
		commonColumns + ", " + leaseColumns + " from jobs where token = w.token and id = w.id and state = 4) j"}
)

// Running lists running jobs; see [store.UpkeepReader].
func (s *Store) Running(ctx context.Context, filter store.RunningFilter, after job.ID, limit int) ([]store.Running, error) {
	// The conditions that depend on a job's policy are checked here, of as many rows as it takes.
	q, rows := readAllRunning, runningRows
	switch filter {
	case store.AllRunning:
		rows = limit
	case store.LapsedOnly:
		q, rows = readLapsed, limit
	case store.CancelOnly:
		q = readCancelled
	}
	now := s.Now()
	return s.running(ctx, q, intParam(now.UnixMicro()), after, rows, limit, func(j *ops.Job) bool { return j.Matches(filter, now) })
}

// RunningOf lists the running jobs of a process; see [store.UpkeepReader].
func (s *Store) RunningOf(ctx context.Context, p job.Process, after job.ID, limit int) ([]store.Running, error) {
	return s.running(ctx, readRunningOf, p[:], after, limit, limit, func(*ops.Job) bool { return true })
}

// running lists up to limit jobs that match, and reads so many rows at a time.
func (s *Store) running(ctx context.Context, q *statement, value []byte, after job.ID, rows, limit int, matches func(*ops.Job) bool) (list []store.Running, err error) {
	err = s.snapshot(ctx, func(r *reader) error {
		list = nil
		from, read := after, 0
		next := question{q, [][]byte{from[:], intParam(int64(rows)), value}, func(row *record) error {
			j := scanUnfinished(row).job
			from = j.ID
			if read++; len(list) < limit && matches(j) { // also a damaged one: a sweep ends it
				list = append(list, j.View())
			}
			return nil
		}}
		err := r.first(ctx, next)
		for err == nil && read == rows && len(list) < limit {
			read = 0
			err = r.ask(ctx, next)
		}
		return err
	})
	return list, err
}

// Leases returns the jobs of leases; see [store.UpkeepReader].
func (s *Store) Leases(ctx context.Context, leases []job.Lease) ([]store.Running, error) {
	wanted := newTable("uu")
	for _, l := range leases {
		wanted.uuid(l.Job).uuid(l.Token)
	}
	list := make([]store.Running, len(leases))
	err := s.read(ctx, readLeases, func(r *record) error {
		at := r.int() - 1
		list[at] = scanUnfinished(r).job.View()
		return nil
	}, wanted.params()...)
	return list, err
}
