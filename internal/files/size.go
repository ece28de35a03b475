package files

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// sizes is how many bytes the files of a Dir hold. What this process keeps and removes
// it knows; what lay there before is counted when somebody asks.
type sizes struct {
	mu        sync.Mutex
	bytes     int64               // guarded by mu
	uncounted map[job.ID]struct{} // guarded by mu: the directories that have yet to be counted
}

// Size is how many bytes the files hold, but for those that are being received. The
// first call reads the directories that an earlier process left, and may take its time.
// It is for those who said [Options.TrackSize].
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

// countOne counts a directory; false when none is left to count.
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

// setUncounted notes what lies there at the start.
func (s *sizes) setUncounted(there map[job.ID]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncounted = there
}

// add counts what was received for a job.
func (s *sizes) add(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += bytes
}

// subtract takes a job's directory, which is still there, out of the count.
func (s *sizes) subtract(id job.ID, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, uncounted := s.uncounted[id]; uncounted {
		delete(s.uncounted, id)
		return
	}
	s.bytes -= bytesIn(path)
}

// bytesIn is how many bytes the files of a job's directory hold. What cannot be read
// counts for nothing.
func bytesIn(path string) (total int64) {
	dir, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // as many as a job may have
	for _, name := range names {
		if info, err := os.Lstat(filepath.Join(path, name)); err == nil {
			total += info.Size()
		}
	}
	return total
}
