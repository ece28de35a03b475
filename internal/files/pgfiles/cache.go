package pgfiles

import (
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// cache keeps copies of files on the local disk, those of a job in a directory of its own, under
// the names that the job has for them, as in a [files.Dir]. It counts bytes when a job enters,
// before they are fetched. The files of a job are removed together, and only while no attempt
// uses them: those that were used longest ago first.
type cache struct {
	// Set once.
	path     string   // absolute
	root     *os.Root // of path
	max      int64    // bytes
	keepFree int64
	free     func() (int64, bool)
	log      *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	jobs    map[job.ID]*cachedJob
	bytes   int64      // of jobs
	idle    *list.List // of *cachedJob; the one that was used last is in front
	waiting *list.List // of *waiter; the first one gets room first
}

// cachedJob is the files of one job in the cache.
type cachedJob struct {
	// Set once.
	id    job.ID
	bytes int64
	// filling has a value while a goroutine checks and fetches the files.
	filling chan struct{}

	// Guarded by the cache's mu.
	users int           // attempts that have or want the files
	idle  *list.Element // nil while there are users
}

// waiter waits until there is room for the files of a job.
type waiter struct {
	id    job.ID
	bytes int64
	got   chan *cachedJob // buffered; receives one value, after which the waiter is gone
}

func openCache(o Options) (*cache, error) {
	path, err := filepath.Abs(o.Cache)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the directory for copies of the jobs' files cannot be made: %w", err)
	}
	free := o.Free
	if free == nil {
		free = func() (int64, bool) { return files.Free(path) }
	}
	c := &cache{path: path, root: root, max: o.CacheBytes, keepFree: o.KeepFree, free: free, log: o.Log,
		jobs: map[job.ID]*cachedJob{}, idle: list.New(), waiting: list.New()}
	return c, c.empty()
}

// empty removes what an earlier process has left.
func (c *cache) empty() error {
	entries, err := os.ReadDir(c.path)
	for _, e := range entries {
		// Nothing else is removed, in case the directory is not what it should be.
		if _, parseErr := job.ParseID(e.Name()); parseErr == nil && err == nil {
			err = c.root.RemoveAll(e.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("the directory %s cannot be emptied: %w", c.path, err)
	}
	return nil
}

// enter returns the entry of a job, for the caller's use until leave. For a new one it waits
// until there is room. A job that is alone always has room.
func (c *cache) enter(ctx context.Context, id job.ID, bytes int64) (*cachedJob, error) {
	c.mu.Lock()
	if j := c.jobs[id]; j != nil {
		c.useLocked(j)
		c.mu.Unlock()
		return j, nil
	}
	w := &waiter{id: id, bytes: bytes, got: make(chan *cachedJob, 1)}
	element := c.waiting.PushBack(w)
	c.admitLocked()
	c.mu.Unlock()
	select {
	case j := <-w.got:
		return j, nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case j := <-w.got: // just now
		c.leaveLocked(j)
	default:
		c.waiting.Remove(element)
		c.admitLocked() // those behind it may need less room
	}
	return nil, context.Cause(ctx)
}

// admitLocked gives room to those that wait, in their order.
func (c *cache) admitLocked() {
	for e := c.waiting.Front(); e != nil; e = c.waiting.Front() {
		w := e.Value.(*waiter)
		j := c.jobs[w.id] // another attempt of the job may have entered meanwhile
		if j == nil {
			for c.bytes+w.bytes > c.max && c.idle.Len() > 0 {
				c.removeOldestLocked()
			}
			if c.bytes+w.bytes > c.max && len(c.jobs) > 0 {
				return
			}
			j = &cachedJob{id: w.id, bytes: w.bytes, filling: make(chan struct{}, 1)}
			c.jobs[w.id] = j
			c.bytes += j.bytes
		}
		c.useLocked(j)
		c.waiting.Remove(e)
		w.got <- j
	}
}

func (c *cache) useLocked(j *cachedJob) {
	j.users++
	if j.idle != nil {
		c.idle.Remove(j.idle)
		j.idle = nil
	}
}

// leave ends a use of the files of a job.
func (c *cache) leave(j *cachedJob) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked(j)
}

func (c *cache) leaveLocked(j *cachedJob) {
	if j.users--; j.users > 0 {
		return
	}
	j.idle = c.idle.PushFront(j)
	c.admitLocked()
}

// removeOldestLocked removes the files that were used longest ago. It reports whether there were
// any.
func (c *cache) removeOldestLocked() bool {
	e := c.idle.Back()
	if e != nil {
		c.removeLocked(e.Value.(*cachedJob))
	}
	return e != nil
}

func (c *cache) removeLocked(j *cachedJob) {
	if err := c.root.RemoveAll(j.id.String()); err != nil {
		c.log.Warn("copies of files could not be removed; the next start tries again", "directory", filepath.Join(c.path, j.id.String()), "error", err)
	}
	c.idle.Remove(j.idle)
	delete(c.jobs, j.id)
	c.bytes -= j.bytes
}

// removeIdle removes the files of a job unless an attempt uses them.
func (c *cache) removeIdle(id job.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if j := c.jobs[id]; j != nil && j.idle != nil {
		c.removeLocked(j)
		c.admitLocked()
	}
}

// idleJobs returns the jobs whose files no attempt uses.
func (c *cache) idleJobs() []pgtype.UUID {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]pgtype.UUID, 0, c.idle.Len())
	for e := c.idle.Front(); e != nil; e = e.Next() {
		ids = append(ids, uuid(e.Value.(*cachedJob).id))
	}
	return ids
}

// makeRoom removes files until so many bytes can be written. It returns false if it cannot.
func (c *cache) makeRoom(bytes int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if free, known := c.free(); !known || free >= bytes+c.keepFree {
			return true
		}
		if !c.removeOldestLocked() {
			return false
		}
	}
}
