package engine

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	announceEvery = 30 * time.Second // how often a process writes its limits
	// followEvery is how often it reads those of the others: a limit that may rise does so within a
	// second.
	followEvery = refreshWithin
	// announcementLife is how long limits hold that are not written again, by the store's clock.
	announcementLife = 90 * time.Second
	// announcementKeep is how long they are kept: the row of a killed process is removed by others.
	announcementKeep = 10 * time.Minute
	maxAnnouncements = 1000 // read at once
)

// limitsOwner owns the announcements. No user has a name with the character U+0001.
var limitsOwner = job.Owner{User: "\x01limits"}

const limitsKind = "limits"

// QueueLimits are the limits of a queue that need the same value in all processes; 0 is no limit.
type QueueLimits struct {
	Running    int   `json:"max_running,omitempty"`
	Depth      int   `json:"max_depth,omitempty"`
	Bytes      int64 `json:"max_bytes,omitempty"`
	KeyRunning int   `json:"per_key.running,omitempty"`
	KeyWaiting int   `json:"per_key.waiting,omitempty"`
}

// ownLimits returns the limits of this process's configuration.
func (q *Queue) ownLimits() QueueLimits {
	return QueueLimits{q.MaxRunning, q.MaxDepth, q.MaxBytes, q.KeyRunning, q.KeyWaiting}
}

func (q *Queue) setLimits(l QueueLimits) {
	q.MaxRunning, q.MaxDepth, q.MaxBytes, q.KeyRunning, q.KeyWaiting = l.Running, l.Depth, l.Bytes, l.KeyRunning, l.KeyWaiting
}

// ofBatch returns the limits that the store enforces.
func (l QueueLimits) ofBatch() job.Limits {
	return job.Limits{Running: l.Running, KeyRunning: l.KeyRunning, KeyWaiting: l.KeyWaiting}
}

// each calls f with the name of each limit, as the configuration has it, and with both values.
func (l *QueueLimits) each(other QueueLimits, f func(name string, own, other int64)) {
	f("max_running", int64(l.Running), int64(other.Running))
	f("max_depth", int64(l.Depth), int64(other.Depth))
	f("max_bytes", l.Bytes, other.Bytes)
	f("per_key.running", int64(l.KeyRunning), int64(other.KeyRunning))
	f("per_key.waiting", int64(l.KeyWaiting), int64(other.KeyWaiting))
}

// smallest returns the smaller one of each limit.
func (l QueueLimits) smallest(other QueueLimits) QueueLimits {
	return QueueLimits{
		smaller(l.Running, other.Running), smaller(l.Depth, other.Depth), smaller(l.Bytes, other.Bytes),
		smaller(l.KeyRunning, other.KeyRunning), smaller(l.KeyWaiting, other.KeyWaiting),
	}
}

// smaller returns the smaller one of two limits, where 0 is no limit.
func smaller[T int | int64](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// announcement is what a process makes known to the others: the body of its row.
type announcement struct {
	Process string                 `json:"process"` // for people
	At      time.Time              `json:"at"`      // by the store's clock
	Queues  map[string]QueueLimits `json:"queues"`
}

// sharedLimits lets the smallest limit of all processes hold in each of them. Processes on one
// store need the same configuration. While it is replaced by another, or by mistake, it differs;
// then a limit would hold for nobody, because each process starts jobs up to its own. Every process
// announces its limits in a side row, and reads those of the others. An engine without a bus is
// alone and has none.
type sharedLimits struct {
	// Set once.
	e    *Engine
	name string // of this process, for people
	id   string // of its row
	own  map[string]QueueLimits

	// Owned by run.
	announcedAt time.Time       // when the row was last written; zero before
	followedAt  time.Time       // when the rows were last read
	hold        int             // reads after which the limits may rise again
	old         []store.Row     // removals of rows that are too old to be kept
	logged      map[string]bool // differences that the log has

	withdrawn atomic.Bool // the row is not written again
}

func newSharedLimits(e *Engine, c *Config) *sharedLimits {
	if c.Bus == nil {
		return nil
	}
	s := &sharedLimits{e: e, name: c.ProcessName, id: hex.EncodeToString(e.process[:]), own: map[string]QueueLimits{}, logged: map[string]bool{}}
	for i := range c.Queues {
		s.own[c.Queues[i].Name] = c.Queues[i].ownLimits()
	}
	return s
}

// run announces and follows until ctx ends.
func (s *sharedLimits) run(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	failing := repeatedError{log: s.e.log, what: "the limits of other processes cannot be read, or those of this one not be written"}
	for {
		err := s.announce(ctx)
		if err == nil {
			err = s.follow(ctx)
		}
		if err == nil && len(s.old) > 0 {
			err = s.e.Write(ctx, s.old...)
		}
		if ctx.Err() != nil {
			return
		}
		failing.report(err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// announce writes the row of this process, if it is time.
func (s *sharedLimits) announce(ctx context.Context) error {
	if !s.announcedAt.IsZero() && time.Since(s.announcedAt) < announceEvery {
		return nil
	}
	body, err := json.Marshal(announcement{s.name, s.e.store.Now(), s.own})
	if err != nil {
		return err
	}
	if s.withdrawn.Load() {
		return nil
	}
	began := time.Now()
	err = s.e.Write(ctx, store.Row{Owner: limitsOwner, Kind: limitsKind, ID: s.id, Body: body})
	if err == nil {
		s.announcedAt = began
	}
	return err
}

// follow reads the announcements, and makes the smallest limits hold here.
func (s *sharedLimits) follow(ctx context.Context) error {
	all, err := s.read(ctx)
	if err != nil {
		return err
	}
	// After an outage the rows of all processes are old. Each gets the time to write its own.
	if !s.followedAt.IsZero() && time.Since(s.followedAt) > announceEvery {
		s.hold = 5
	}
	s.followedAt = time.Now()
	if s.hold > 0 {
		s.hold--
		return nil
	}
	s.report(all)
	limits := maps.Clone(s.own)
	for _, a := range all {
		for name, l := range limits {
			if other, has := a.Queues[name]; has {
				limits[name] = l.smallest(other)
			}
		}
	}
	s.e.setLimits(limits)
	return nil
}

// read returns the announcements of the other processes that hold, by the ids of their rows.
func (s *sharedLimits) read(ctx context.Context) (map[string]announcement, error) {
	set := store.RowSet{Owner: limitsOwner, Kind: limitsKind}
	rows, err := s.e.store.Rows(ctx, set, store.RowPage{Limit: maxAnnouncements})
	all := map[string]announcement{}
	s.old = s.old[:0]
	now := s.e.store.Now()
	for _, r := range rows {
		var a announcement
		if r.ID == s.id || json.Unmarshal(r.Body, &a) != nil {
			continue
		}
		switch age := now.Sub(a.At); {
		case age < announcementLife:
			all[r.ID] = a
		case age > announcementKeep:
			r.Action, r.Body = store.Remove, nil
			s.old = append(s.old, r)
		}
	}
	return all, err
}

// report logs how other processes differ, each difference once.
func (s *sharedLimits) report(all map[string]announcement) {
	found := map[string]bool{}
	once := func(text string, attributes ...any) {
		key := fmt.Sprint(text, attributes)
		if found[key] = true; !s.logged[key] {
			s.e.log.Warn(text, attributes...)
		}
	}
	for id, a := range all {
		process := slog.String("process", a.Process+" "+id[:8])
		for _, queue := range s.e.names {
			other, has := a.Queues[queue]
			if !has {
				once("another process lacks a queue: it runs none of its jobs", "queue", queue, process)
				continue
			}
			own := s.own[queue]
			own.each(other, func(limit string, here, there int64) {
				if here != there {
					once("another process has another limit of a queue: the smaller one holds", "queue", queue, "limit", limit, "here", here, "there", there, process)
				}
			})
		}
	}
	s.logged = found
}

// setLimits sets the limits that hold from the next batch on.
func (e *Engine) setLimits(all map[string]QueueLimits) {
	changed := false
	batch := make(map[string]job.Limits, len(all))
	for name, l := range all {
		q := e.queues[name]
		q.mu.Lock()
		changed = changed || q.limits != l
		q.limits = l
		q.mu.Unlock()
		batch[name] = l.ofBatch()
	}
	if !changed {
		return
	}
	e.limits.Store(&batch)
	// Jobs that wait for a limit may start.
	e.sweeper.scheduleAt(e.store.Now())
	e.lanes.signal()
}

// WithdrawLimits removes the limits of this process from those that others follow. It is for a
// process whose workers have stopped; without it they hold there for up to 90 s more. Other
// processes then start more jobs within a second.
func (e *Engine) WithdrawLimits(ctx context.Context) error {
	s := e.sharedLimits
	if s == nil {
		return nil
	}
	s.withdrawn.Store(true)
	return e.Write(ctx, store.Row{Owner: limitsOwner, Kind: limitsKind, ID: s.id, Action: store.Remove})
}
