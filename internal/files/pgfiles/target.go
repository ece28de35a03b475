package pgfiles

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Stage implements [files.Store].
func (s *Store) Stage(id job.ID) *files.Stage { return s.NewStage(id, &target{store: s, job: id}) }

// target writes the files of a job to the database.
type target struct {
	// Set once.
	store *Store
	job   job.ID

	ids    []pgtype.UUID // of the rows of files that were made
	sizes  []int64       // of the finished files
	hashes [][]byte
	n      int32 // of the next chunk of the last file
}

// Create adds the row of a file. Its id is made here, so that a statement whose answer was lost
// can run again.
func (t *target) Create(ctx context.Context, name string) error {
	id := uuid(job.NewID())
	t.ids, t.n = append(t.ids, id), 0
	_, err := t.store.exec(ctx, "insert into files (id, job, name, state, at) values ($1, $2, $3, 0, "+nowMicros+") on conflict (id) do nothing",
		id, uuid(t.job), name)
	return unwritable(ctx, err)
}

// writeChunk also updates the row of the file, for two reasons: while files arrive nobody may
// take them for left over; and once their removal has begun, no chunk is added, also none by a
// statement that this process has given up and the server still runs.
const writeChunk = `with f as (update files set at = ` + nowMicros + ` where id = $1 and state = 0 returning id)
	insert into file_chunks (file, n, data) select id, $2::integer, $3::bytea from f on conflict (file, n) do update set data = excluded.data`

// Write implements [files.Target].
func (t *target) Write(ctx context.Context, p []byte) error {
	rows, err := t.store.exec(ctx, writeChunk, t.ids[len(t.ids)-1], t.n, p)
	if err == nil && rows != 1 {
		return removedMeanwhile()
	}
	t.n++
	return unwritable(ctx, err)
}

// Finish implements [files.Target]. The row gets its size and hash at the commit.
func (t *target) Finish(_ context.Context, f job.File) error {
	hash, err := hex.DecodeString(f.SHA256)
	t.sizes, t.hashes = append(t.sizes, f.Size), append(t.hashes, hash)
	return err
}

const commitFiles = `update files f set state = 1, size = v.size, sha256 = v.sha256, at = ` + nowMicros + `
	from unnest($1::uuid[], $2::bigint[], $3::bytea[]) v (id, size, sha256) where f.id = v.id and f.state < 2`

// Commit implements [files.Target].
func (t *target) Commit(ctx context.Context) error {
	if len(t.ids) == 0 {
		return nil
	}
	rows, err := t.store.exec(ctx, commitFiles, t.ids, t.sizes, t.hashes)
	if err == nil && rows != int64(len(t.ids)) {
		return removedMeanwhile()
	}
	return unwritable(ctx, err)
}

// removedMeanwhile is the error of an upload that stood still for so long that another process
// has removed its files.
func removedMeanwhile() error {
	return &job.Error{Code: job.Unavailable, Message: "the files took so long to arrive that the server has removed them: send them again", RetryAfter: time.Second}
}

// discardTimeout bounds a discard: the client waits for its answer.
const discardTimeout = 5 * time.Second

// Discard implements [files.Target].
func (t *target) Discard() {
	if len(t.ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
	defer cancel()
	if err := t.store.remove(ctx, []job.ID{t.job}); err != nil {
		t.store.log.Warn("the files of a refused submit could not be removed from the database; they are removed after a day", "job", t.job, "error", err)
	}
}
