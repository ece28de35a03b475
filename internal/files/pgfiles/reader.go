package pgfiles

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// storedFile is a file in the database.
type storedFile struct {
	id   pgtype.UUID
	name string
	size int64
}

// storedFiles returns the complete files of a job, by name.
func (s *Store) storedFiles(ctx context.Context, id job.ID) (map[string]storedFile, error) {
	list, err := collect(ctx, s, func(row pgx.CollectableRow) (f storedFile, err error) {
		err = row.Scan(&f.id, &f.name, &f.size)
		return f, err
	}, "select id, name, size from files where job = $1 and state = 1", uuid(id))
	if err != nil {
		return nil, err
	}
	byName := make(map[string]storedFile, len(list))
	for _, f := range list {
		byName[f.name] = f
	}
	return byName, nil
}

// Open implements [files.Store]. It reads from the database, one chunk at a time, and does not
// use the cache.
func (s *Store) Open(ctx context.Context, id job.ID, f job.File) (io.ReadSeekCloser, error) {
	stored, err := s.storedFiles(ctx, id)
	if err != nil {
		return nil, unreadable(err)
	}
	found, ok := stored[f.Name]
	if !ok {
		return nil, job.Errorf(job.NotFound, "the file %s is gone", job.Quote(f.Name))
	}
	return &reader{store: s, ctx: ctx, file: found, chunk: -1}, nil
}

// reader reads a file from the database.
type reader struct {
	store *Store
	ctx   context.Context
	file  storedFile

	at    int64
	chunk int64 // the number of the chunk in data; -1 for none
	data  []byte
}

// errRemoved is the error of a read of a file that was removed meanwhile.
var errRemoved = errors.New("pgfiles: the file was removed")

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.file.size {
		return 0, io.EOF
	}
	if n := r.at / chunkSize; n != r.chunk {
		r.chunk = -1
		data, err := r.store.readChunk(r.ctx, r.file, n)
		if err != nil {
			return 0, err
		}
		r.chunk, r.data = n, data
	}
	n := copy(p, r.data[r.at-r.chunk*chunkSize:])
	r.at += int64(n)
	return n, nil
}

// readChunk reads a chunk of a file.
func (s *Store) readChunk(ctx context.Context, f storedFile, n int64) ([]byte, error) {
	found, err := collect(ctx, s, pgx.RowTo[[]byte], "select data from file_chunks where file = $1 and n = $2", f.id, int32(n))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errRemoved
	}
	if want := min(f.size-n*chunkSize, chunkSize); int64(len(found[0])) != want {
		return nil, fmt.Errorf("%w: chunk %d has %d bytes, not %d", errChanged, n, len(found[0]), want)
	}
	return found[0], nil
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.file.size
	}
	if offset < 0 {
		return 0, errors.New("pgfiles: a seek before the beginning")
	}
	r.at = offset
	return offset, nil
}

func (r *reader) Close() error {
	r.data, r.chunk = nil, -1
	return nil
}
