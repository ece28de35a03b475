package files

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// sizes counts the bytes of the files of a Dir. It follows what this process commits and removes.
// Files of an earlier process are counted by the first call of Size.
type sizes struct {
	mu        sync.Mutex
	bytes     int64               // guarded by mu
	uncounted map[job.ID]struct{} // guarded by mu: directories that are not counted yet
}

// Size implements [Store]. The first call reads the directories of an earlier process, which may
// take long. It needs [Options.TrackSize].
func (d *Dir) Size(ctx context.Context) (int64, error) {
	for d.countOne() {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	d.sizes.mu.Lock()
	defer d.sizes.mu.Unlock()
	return d.sizes.bytes, nil
}

// countOne counts one directory. It returns false when none is left. It has the lock only for
// one directory at a time, so that commits and removes go on while Size counts.
func (d *Dir) countOne() bool {
	s := &d.sizes
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.uncounted {
		delete(s.uncounted, id)
		s.bytes += bytesIn(d.jobDir(id))
		return true
	}
	s.uncounted = nil
	return false
}

// setUncounted sets the directories of an earlier process.
func (s *sizes) setUncounted(there map[job.ID]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncounted = there
}

// add counts the files that were committed for a job.
func (s *sizes) add(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += bytes
}

// subtract takes a job's directory out of the count, before it is removed.
func (s *sizes) subtract(id job.ID, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, uncounted := s.uncounted[id]; uncounted {
		delete(s.uncounted, id)
		return
	}
	s.bytes -= bytesIn(path)
}

// bytesIn is the number of bytes of the files in a job's directory. A file that cannot be read
// counts as empty.
func bytesIn(path string) (total int64) {
	// A command may have put a link or a pipe in its place.
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return 0
	}
	dir, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // the largest number of files of a job
	for _, name := range names {
		if info, err := os.Lstat(filepath.Join(path, name)); err == nil {
			total += info.Size()
		}
	}
	return total
}
