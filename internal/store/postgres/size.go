package postgres

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Size is the sum of what deleting everything would free: an estimate, because the real size
// depends on the state of the tables. Each batch stores in its row of the table applied by how
// much it has changed the sum. So Size falls in the moment of a delete, although the database
// keeps the space for new rows. The bytes of a job are
//
//	jobBytes at the submit, in the column bytes
//	resultBytes added to the column when the job has a result
//	outputBytes of its cursor and out_bytes
//
// and what owners keep besides jobs counts as in the table owners. Changing any of these needs a
// migration, because the sums are stored.
const (
	jobOverhead    = 1000 // of a job's row, its entries in indexes, and the row of its input
	entryOverhead  = 80   // of a row of output besides its data
	resultOverhead = 100
)

// jobBytes is what a new job adds: extra is the length of its encoded extra fields.
func jobBytes(j *job.Job, input, extra int) int64 {
	names := len(j.Owner.Tenant) + len(j.Owner.User) + len(j.Queue) + len(j.Key)
	return int64(jobOverhead + 3*names + input + extra) // most names are in several indexes
}

// resultBytes is what a result adds to its job.
func resultBytes(r *job.Result) int64 { return int64(resultOverhead + len(r.Body)) }

// outputBytes is what entries with together so many bytes of data add.
func outputBytes(entries, data int64) int64 { return entries*entryOverhead + data }

var readSize = &statement{"read_size", "select (select bytes from fold) + (select coalesce(sum(bytes), 0) from applied)::bigint"}

// Size returns what deleting everything would free; see [store.UpkeepReader].
func (s *Store) Size(ctx context.Context) (size int64, err error) {
	err = s.read(ctx, readSize, func(r *record) error { size = r.int(); return nil })
	return size, err
}
