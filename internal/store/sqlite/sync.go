package sqlite

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// syncer makes commits durable. A commit writes its frames to the log and lets the
// next one begin; whoever has to know that it is on disk waits here. One sync
// serves all commits before it, and all that wait for them.
//
// A log that cannot be synced cannot be trusted any more: what was written since
// the last sync may be lost although it still reads as if it were there. So the
// first error stays.
type syncer struct {
	log   *os.File   // set once; nil when commits are not synced
	async *asyncSync // set once; nil where the system does not offer it

	mu sync.Mutex
	// Guarded by mu.
	changed        sync.Cond // tells of every change below
	begun          uint64    // commits that readers may see already
	lastRowsCommit uint64    // the last of them that wrote side rows
	written        uint64    // commits whose frames are in the log: begun, or one less
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
	// What a process that was killed had written and not synced is read as if it had
	// been: before anyone sees it, it is.
	if err := syncFile(log); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if s.async, err = newAsyncSync(log); err != nil {
		s.async = nil // plain syncs do as well
	}
	return s, syncDir(path)
}

// extend makes a log at least so long, where there is room. What it adds is no
// frame to SQLite, which reads a log up to the first that is none.
func extend(log *os.File, size int64) {
	info, err := log.Stat()
	if err != nil || info.Size() >= size {
		return
	}
	if _, err := log.WriteAt(make([]byte, size-info.Size()), info.Size()); err != nil {
		_ = log.Truncate(info.Size()) // what room there is, others need
	}
}

// begin counts a commit in before anyone can see its work, and notes whether it wrote
// side rows.
func (s *syncer) begin(rows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun++
	if rows {
		s.lastRowsCommit = s.begun
	}
}

// end says what became of the commit that was begun: whether its frames are in
// the log. It returns the number to wait for.
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

// seen is the last commit whose work a read that is over may have seen.
func (s *syncer) seen() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// seenRows is the last commit whose side rows a read that is over may have seen.
// Those that came later wrote none: whoever reads only rows need not wait for them.
func (s *syncer) seenRows() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastRowsCommit
}

// wait returns when the commit, and all before it, are on disk, or says that this
// cannot be known. A commit that was begun and came to nothing is not waited for. Lone says that
// nothing else is going on: then a thread that blocks is the quickest.
func (s *syncer) wait(commit uint64, lone bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.synced < min(commit, s.begun) && s.err == nil {
		if s.syncing || s.written < min(commit, s.begun) {
			s.changed.Wait()
		} else {
			s.syncLocked(lone)
		}
	}
	if s.synced >= min(commit, s.begun) {
		return nil
	}
	return s.err
}

// syncLocked syncs all that was written so far, without holding mu meanwhile.
func (s *syncer) syncLocked(lone bool) {
	upTo := s.written
	s.syncing = true
	s.mu.Unlock()
	err := s.sync(lone)
	s.mu.Lock()
	s.syncing = false
	if err != nil {
		s.err = fmt.Errorf("the log of the database cannot be synced to disk: %w", err)
	} else {
		s.synced = max(s.synced, upTo)
	}
	s.changed.Broadcast()
}

func (s *syncer) sync(lone bool) error {
	switch {
	case s.log == nil:
		return nil
	case s.async == nil || lone:
		return syncFile(s.log)
	}
	if err := s.async.sync(); !errors.Is(err, errNotSubmitted) {
		return err
	}
	return syncFile(s.log)
}

// failed says whether the log cannot be trusted any more.
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
