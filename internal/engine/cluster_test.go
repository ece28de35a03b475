package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// cluster is one store that several processes share, each through its own storeLink. It lives in
// a synctest bubble, so all delays are in virtual time.
type cluster struct {
	store.Store
	path     string
	applying chan struct{} // has a value while a batch is applied; never closed

	mu sync.Mutex
	// Guarded by mu.
	stalledUntil time.Time // when the stall of the disk ends
}

// withCluster runs a test in a bubble, with a cluster over a new store.
func withCluster(t *testing.T, test func(t *testing.T, p *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		p := &cluster{path: filepath.Join(t.TempDir(), "jobs.db"), applying: make(chan struct{}, 1)}
		p.Store = openUnsynced(t, p.path)
		defer func() { _ = p.Store.Close() }()
		test(t, p)
	})
}

// stallDisk stalls the disk for all processes, for the given time.
func (p *cluster) stallDisk(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalledUntil = time.Now().Add(d)
}

func (p *cluster) waitForDisk() {
	for {
		p.mu.Lock()
		left := time.Until(p.stalledUntil)
		p.mu.Unlock()
		if left <= 0 {
			return
		}
		time.Sleep(left)
	}
}

var (
	errKilled     = errors.New("the process is dead")
	errUnreadable = errors.New("the disk cannot be read")
)

// storeLink is the store as one process uses it. It remembers the batches that the process
// applied, as a shared database does: a batch that is applied again gets the same answers, even
// if other processes have committed since.
type storeLink struct {
	store.Store
	cluster    *cluster
	killed     atomic.Bool
	clockAhead atomic.Int64 // how far its clock is ahead, in nanoseconds
	// unreadableUntil is when its reads succeed again, in Unix nanoseconds.
	unreadableUntil atomic.Int64

	applied map[store.BatchID]func() error // used by one goroutine at a time
}

func (l *storeLink) Now() time.Time { return l.Store.Now().Add(time.Duration(l.clockAhead.Load())) }

func (l *storeLink) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	l.cluster.applying <- struct{}{}
	defer func() { <-l.cluster.applying }()
	l.cluster.waitForDisk()
	if l.killed.Load() {
		return nil, store.ErrDamaged
	}
	if synced := l.applied[b.ID]; synced != nil {
		return synced, nil
	}
	synced, err := l.Store.Apply(ctx, b)
	if err != nil {
		return nil, err
	}
	durable := func() error {
		time.Sleep(rand.N(2 * time.Millisecond)) // so that other batches are applied meanwhile
		l.cluster.waitForDisk()
		if l.killed.Load() {
			return errKilled
		}
		return synced()
	}
	l.applied[b.ID] = durable
	return durable, nil
}

func (l *storeLink) Close() error { return nil } // withCluster closes the store

// beforeRead fails the reads of a killed process, and waits while the disk is stalled.
func (l *storeLink) beforeRead(string) error {
	l.cluster.waitForDisk()
	if l.killed.Load() {
		return errKilled
	}
	if time.Now().UnixNano() < l.unreadableUntil.Load() {
		return errUnreadable
	}
	return nil
}

type process struct {
	*harness
	link  *storeLink
	store *faulty.Store
	id    job.Process
	ended chan struct{} // closed when its engine has ended
}

// startProcess starts a process without workers.
func (p *cluster) startProcess(t *testing.T, c engine.Config) *process {
	t.Helper()
	m := &process{link: &storeLink{Store: p.Store, cluster: p, applied: map[store.BatchID]func() error{}}, id: job.NewProcess(), ended: make(chan struct{})}
	m.store = faulty.New(m.link, faulty.Plan{Read: m.link.beforeRead, Seed: rand.Uint64()})
	c.Store, c.Process = m.store, m.id
	e, err := engine.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(m.ended)
		_ = e.Run(ctx)
	}()
	m.harness = &harness{Engine: e, t: t, store: m.store}
	m.stop = sync.OnceFunc(func() {
		cancel()
		<-m.ended
	})
	return m
}

// kill ends a process as kill -9 does: none of its writes reaches the store any more.
func (p *process) kill() {
	p.link.killed.Store(true)
	p.stop()
}

// lossyBus is a bus that loses a share of the notices at random.
type lossyBus struct {
	bus.Local
	lossPercent atomic.Int64 // of 100 notices
}

func (b *lossyBus) Join(wake func(bus.Notice)) bus.Member {
	return b.Local.Join(func(n bus.Notice) {
		if rand.Int64N(100) >= b.lossPercent.Load() {
			wake(n)
		}
	})
}
