package sqlite

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// syncer makes commits durable. A commit writes its frames to the log and lets the next one
// begin; callers that need durability wait here. One sync serves all commits before it and all
// of their waiters.
//
// A log that failed to sync cannot be trusted any more: what was written since the last sync may
// be lost although reads still return it. So the first error is permanent.
type syncer struct {
	log   *os.File   // set once; nil if commits are not synced
	async *asyncSync // set once; nil if the system does not offer it

	mu sync.Mutex
	// Guarded by mu.
	changed        sync.Cond // signals every change below
	begun          uint64    // commits that readers may see
	lastRowsCommit uint64    // the last of them that wrote side rows
	written        uint64    // commits with all frames in the log: begun, or one less
	synced         uint64    // commits that are on disk
	syncing        bool
	err            error
}

func openSyncer(path string, o Options) (*syncer, error) {
	s := &syncer{}
	s.changed.L = &s.mu
	if o.Unsynced {
		return s, nil
	}
	log, err := os.OpenFile(path+"-wal", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s.log = log
	extend(log, o.PreallocateLog)
	// A killed process may have left frames that are written and not synced. Readers will see
	// them, so they are made durable first.
	if err := syncFile(log); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if s.async, err = newAsyncSync(log); err != nil {
		s.async = nil // plain syncs work everywhere
	}
	return s, syncDir(path)
}

// extend grows a log to size with zeros, if the disk has the space. SQLite reads a log up to the
// first invalid frame, and zeros are not a valid frame.
func extend(log *os.File, size int64) {
	info, err := log.Stat()
	if err != nil || info.Size() >= size {
		return
	}
	if err := writeZeros(log, info.Size(), size); err != nil {
		_ = log.Truncate(info.Size()) // other files need the space
	}
}

// begin counts a commit before readers can see it, and notes whether it wrote side rows.
func (s *syncer) begin(rows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun++
	if rows {
		s.lastRowsCommit = s.begun
	}
}

// end ends the commit that was begun; written reports whether its frames are in the log. It
// returns the number to wait for.
func (s *syncer) end(written bool) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if written {
		s.written++
	} else {
		s.begun--
	}
	s.changed.Broadcast()
	return s.written
}

// visible returns the last commit that a finished read may have seen.
func (s *syncer) visible() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// visibleRows returns the last commit whose side rows a finished read may have seen. Later ones
// wrote none, so a read of side rows need not wait for them.
func (s *syncer) visibleRows() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastRowsCommit
}

// wait returns nil once the commit and all before it are on disk, or an error if that is
// uncertain. It does not wait for a commit that was begun and failed. Idle means that the server
// is idle: then a blocking sync has the lowest latency.
func (s *syncer) wait(commit uint64, idle bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A failed commit lowers begun, and then fewer commits are waited for.
	for s.synced < min(commit, s.begun) && s.err == nil {
		if s.syncing || s.written < min(commit, s.begun) {
			s.changed.Wait()
		} else {
			s.syncLocked(idle)
		}
	}
	if s.synced >= min(commit, s.begun) {
		return nil
	}
	return s.err
}

// syncLocked syncs everything written so far. It unlocks mu meanwhile.
func (s *syncer) syncLocked(idle bool) {
	upTo := s.written
	s.syncing = true
	s.mu.Unlock()
	err := s.sync(idle)
	s.mu.Lock()
	s.syncing = false
	if err != nil {
		s.err = fmt.Errorf("the log of the database cannot be synced to disk: %w", err)
	} else {
		s.synced = max(s.synced, upTo)
	}
	s.changed.Broadcast()
}

func (s *syncer) sync(idle bool) error {
	switch {
	case s.log == nil:
		return nil
	// With nothing else to run, a blocked thread costs nothing and wakes up first.
	case s.async == nil || idle:
		return syncFile(s.log)
	}
	if err := s.async.sync(); !errors.Is(err, errNotSubmitted) {
		return err
	}
	return syncFile(s.log)
}

// failed reports whether a sync has failed: the log cannot be trusted any more.
func (s *syncer) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

func (s *syncer) close() error {
	if s.log == nil {
		return nil
	}
	var err error
	if s.async != nil {
		err = s.async.close()
	}
	return errors.Join(err, s.log.Close())
}
