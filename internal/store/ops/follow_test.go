package ops

import (
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/fairqueue"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Several processes that follow each other's changes answer batches as one process does that
// applies all of them: with the same counts, limits, turns and suspects.
func TestProcessesThatFollowAnswerAsOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 60).Draw(t, "batches") {
			w.step(t)
		}
	})
}

// world has three processes on one store, and one process alone on another store. Both stores get
// the same batches.
type world struct {
	shared, alone   *memTx
	processes       [3]*Memory
	reference       *Memory
	queues, tenants int
	resources       int
	keyRunning      int
	changingLimits  bool
	made            uint64 // ids and tokens so far
}

func newWorld(t *rapid.T) *world {
	w := &world{shared: newMemTx(), alone: newMemTx(), reference: NewMemory(false)}
	for i := range w.processes {
		w.processes[i] = NewMemory(true)
	}
	w.queues, w.tenants = rapid.IntRange(1, 2).Draw(t, "queues"), rapid.IntRange(1, 3).Draw(t, "tenants")
	w.resources, w.keyRunning = rapid.IntRange(1, 3).Draw(t, "resources"), rapid.IntRange(0, 3).Draw(t, "limit of keys")
	// A changed limit queues the parked jobs of several keys in no order. That is visible only in the
	// order of tenants whose turn is the same.
	w.changingLimits = w.tenants == 1
	return w
}

// step lets one of the processes apply a batch, and the others follow it.
func (w *world) step(t *rapid.T) {
	if w.changingLimits && rapid.IntRange(0, 4).Draw(t, "change") == 0 {
		w.keyRunning = rapid.IntRange(0, 3).Draw(t, "limit of keys")
		// Each process looks for parked jobs that the new limit allows: until then it does not
		// matter to it that another one has looked.
		for by := range w.processes {
			w.apply(t, by, func() *store.Batch { return w.newBatch(job.Limits{KeyRunning: w.keyRunning}, &store.Due{Limit: 100}) })
		}
	}
	build := w.drawBatch(t)
	at := w.shared.now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
	w.shared.now, w.alone.now = at, at
	w.apply(t, rapid.IntRange(0, len(w.processes)-1).Draw(t, "process"), build)
}

// apply lets a process apply a batch.
func (w *world) apply(t *rapid.T, by int, build func() *store.Batch) {
	got, want := build(), build()
	if err := Apply(w.alone, w.reference, want, nil); err != nil {
		t.Fatal(err)
	}
	if err := Apply(w.shared, w.processes[by], got, nil); err != nil {
		t.Fatal(err)
	}
	changes, err := DecodeChanges(AppendChanges(nil, w.processes[by].Changes()))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range w.processes {
		for k := range changes {
			if i != by {
				m.Follow(&changes[k])
			}
		}
	}
	w.compare(t, got, want)
}

func (w *world) compare(t *rapid.T, got, want *store.Batch) {
	for _, b := range []*store.Batch{got, want} {
		slices.SortFunc(b.Moved, func(a, b store.Moved) int { return slices.Compare(a.ID[:], b.ID[:]) })
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the batch is answered with\n%s\nwant\n%s", printed(got), printed(want))
	}
	if !reflect.DeepEqual(w.shared.jobs, w.alone.jobs) || !reflect.DeepEqual(w.shared.lanes, w.alone.lanes) {
		t.Fatalf("the stores differ after\n%s", printed(got))
	}
	for i, m := range w.processes {
		if !reflect.DeepEqual(m.Counts(), w.reference.Counts()) {
			t.Fatalf("process %d has the counts\n%+v, want\n%+v", i, m.Counts(), w.reference.Counts())
		}
		if !slices.Equal(m.suspects.queues, w.reference.suspects.queues) || m.suspects.running != w.reference.suspects.running {
			t.Fatalf("process %d has the suspects %+v, want %+v", i, m.suspects, w.reference.suspects)
		}
		w.checkLoaded(t, m)
	}
}

// checkLoaded compares a memory with one that is loaded from the store.
func (w *world) checkLoaded(t *rapid.T, m *Memory) {
	loaded := NewMemory(false)
	load := loaded.Load()
	for name, c := range m.Counts() {
		load.Counts(name, c)
	}
	for id, j := range w.shared.jobs {
		switch j.State {
		case job.Scheduled:
			load.Scheduled([]byte(j.Queue), []byte(j.Owner.Tenant), []byte(j.Key))
		case job.Queued, job.Parked:
			load.Ready([]byte(j.Queue), []byte(w.shared.lanes[id]), []byte(j.Key), j.Priority, j.Turn, j.RunAt)
		case job.Running:
			load.Running(&j.Job)
		}
	}
	for _, j := range w.shared.jobs {
		limits := job.Limits{KeyRunning: 2, KeyWaiting: 2}
		a, b := m.find(j.Queue), loaded.find(j.Queue)
		before := a.Limits
		a.Limits, b.Limits = limits, limits
		k := fairqueue.KeyOf(&j.Job)
		if a.ReadyState(k, j.Resource) != b.ReadyState(k, j.Resource) || a.MayRun(k) != b.MayRun(k) ||
			!maps.Equal(maps.Collect(a.Unparkable(k)), maps.Collect(b.Unparkable(k))) {
			t.Fatalf("the limits of the key %v differ from those of an opening", k)
		}
		a.Limits = before
	}
	if m.suspects.running != loaded.suspects.running {
		t.Fatalf("%d suspects run, after an opening %d", m.suspects.running, loaded.suspects.running)
	}
}

func printed(b *store.Batch) (text string) {
	for _, op := range b.Claims {
		for _, c := range op.Claimed {
			text += fmt.Sprintf("claimed %x turn %d; ", c.Job.ID[8:], c.Job.Attempt)
		}
	}
	for _, op := range b.Submits {
		text += fmt.Sprintf("submitted %x as %s, %v; ", op.Job.ID[8:], op.Job.State, op.Err)
	}
	return text + fmt.Sprintf("moved %d, counts %+v", len(b.Moved), b.Counts)
}

// drawBatch draws a batch, and returns a function that makes it anew: a batch has room for one
// answer only.
func (w *world) drawBatch(t *rapid.T) func() *store.Batch {
	var ops []func() any
	for range rapid.IntRange(1, 6).Draw(t, "ops") {
		if op := w.drawOp(t); op != nil {
			ops = append(ops, op)
		}
	}
	limits := job.Limits{KeyRunning: w.keyRunning, Running: rapid.IntRange(0, 6).Draw(t, "limit"), KeyWaiting: 20}
	room := map[string]int{}
	for i := 1; i < w.resources; i++ {
		room[resourceName(i)] = rapid.IntRange(0, 3).Draw(t, "room")
	}
	return func() *store.Batch {
		b := w.newBatch(limits)
		b.Room = maps.Clone(room)
		for _, op := range ops {
			b.Add(op())
		}
		return b
	}
}

func (w *world) newBatch(limits job.Limits, ops ...any) *store.Batch {
	b := &store.Batch{Limits: map[string]job.Limits{"q0": limits, "q1": limits}}
	for _, op := range ops {
		b.Add(op)
	}
	return b
}

func (w *world) drawOp(t *rapid.T) func() any {
	queue := fmt.Sprint("q", rapid.IntRange(0, w.queues-1).Draw(t, "queue"))
	switch rapid.IntRange(0, 9).Draw(t, "op") {
	case 0, 1, 2:
		return w.drawSubmit(t, queue)
	case 3, 4:
		tokens := make([]job.Token, rapid.IntRange(1, 4).Draw(t, "tokens"))
		for i := range tokens {
			tokens[i] = job.Token(w.id())
		}
		return func() any { return &store.Claim{Queue: queue, Tokens: tokens, LeaseFor: time.Minute} }
	case 5, 6, 7:
		return w.drawFinish(t)
	case 8:
		return func() any { return &store.Due{Limit: 100} }
	}
	ids := w.jobs(func(*Job) bool { return true })
	if len(ids) == 0 {
		paused := rapid.Bool().Draw(t, "paused")
		return func() any { return &store.Pause{Queue: queue, Paused: paused} }
	}
	j := rapid.SampledFrom(ids).Draw(t, "job")
	owner, id := j.Owner, j.ID
	switch rapid.IntRange(0, 3).Draw(t, "change") {
	case 0:
		return func() any { return &store.Cancel{Owner: owner, ID: id} }
	case 1:
		return func() any { return &store.Delete{Owner: owner, ID: id} }
	case 2:
		return func() any { return &store.Retry{Owner: owner, ID: id} }
	}
	paused := rapid.IntRange(0, 3).Draw(t, "paused") == 0
	return func() any { return &store.Pause{Queue: queue, Paused: paused} }
}

func (w *world) drawSubmit(t *rapid.T, queue string) func() any {
	j := job.Job{
		ID: job.ID(w.id()), Queue: queue, Owner: job.Owner{Tenant: fmt.Sprint("t", rapid.IntRange(0, w.tenants-1).Draw(t, "tenant"))},
		Key: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key"), Priority: rapid.SampledFrom([]int{5, 5, 1, 9}).Draw(t, "priority"),
		Resource: resourceName(rapid.IntRange(0, w.resources-1).Draw(t, "resource")), MaxAttempts: 3, InputBytes: 10,
	}
	op := store.Submit{Job: j, LeaseFor: time.Minute}
	switch rapid.IntRange(0, 3).Draw(t, "kind of submit") {
	case 0:
		op.Delay = time.Duration(rapid.IntRange(1, 30).Draw(t, "delay")) * time.Second
	case 1:
		op.Token = job.Token(w.id())
	}
	return func() any { c := op; return &c }
}

func (w *world) drawFinish(t *rapid.T) func() any {
	running := w.jobs(func(j *Job) bool { return j.State == job.Running })
	if len(running) == 0 {
		return nil
	}
	j := rapid.SampledFrom(running).Draw(t, "running")
	op := store.Finish{
		Lease: job.Lease{Job: j.ID, Token: j.Lease.Token}, Lost: rapid.Bool().Draw(t, "lost"),
		To:    rapid.SampledFrom([]job.State{job.Succeeded, job.Failed, job.Queued, job.Queued, job.Scheduled}).Draw(t, "to"),
		Delay: 5 * time.Second,
	}
	return func() any { c := op; return &c }
}

// jobs lists jobs by their numbers.
func (w *world) jobs(is func(*Job) bool) []*Job {
	list, _ := w.alone.all(is, func(*Job, *Job) int { return 0 }, 1000)
	return list
}

func (w *world) id() (id [16]byte) {
	w.made++
	binary.BigEndian.PutUint64(id[8:], w.made)
	return id
}

func resourceName(n int) string { return []string{"", "r1", "r2"}[n] }

// pair has two processes on one store.
type pair struct {
	*testing.T
	tx        *memTx
	processes [2]*Memory
	limit     int // of running jobs of a key
	made      byte
}

func newPair(t *testing.T) *pair {
	return &pair{T: t, tx: newMemTx(), processes: [2]*Memory{NewMemory(true), NewMemory(true)}}
}

// apply applies ops in a process, and the other one follows.
func (p *pair) apply(by int, ops ...any) {
	p.Helper()
	b := &store.Batch{Limits: map[string]job.Limits{"q": {KeyRunning: p.limit}}}
	for _, op := range ops {
		b.Add(op)
	}
	if err := Apply(p.tx, p.processes[by], b, nil); err != nil {
		p.Fatal(err)
	}
	for _, c := range p.processes[by].Changes() {
		p.processes[1-by].Follow(&c)
	}
}

func (p *pair) submit(by int, key string, leased bool) *store.Submit {
	p.Helper()
	p.made++
	op := &store.Submit{LeaseFor: time.Minute, Job: job.Job{ID: job.ID{p.made}, Queue: "q", Key: key, Priority: job.DefaultPriority}}
	if leased {
		op.Token = job.Token{p.made}
	}
	p.apply(by, op)
	return op
}

func (p *pair) finish(by int, op *store.Submit) {
	p.Helper()
	p.apply(by, &store.Finish{Lease: job.Lease{Job: op.Job.ID, Token: op.Token}, To: job.Succeeded})
}

// A process queues a parked job in a place that another process freed under a lower limit.
func TestFollowerLooksForParkedJobs(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.limit = 2
	first := p.submit(0, "k", true)
	p.submit(0, "k", true)
	p.apply(0, &store.Due{Limit: 10})
	p.apply(1, &store.Due{Limit: 10}) // from now on it does not look again while the limit is the same
	parked := p.submit(0, "k", false)
	p.limit = 1
	p.finish(0, first)
	if s := p.tx.jobs[parked.Job.ID].State; s != job.Parked {
		t.Fatalf("the third job is %s, want parked", s)
	}
	p.limit = 2
	p.apply(1, &store.Due{Limit: 10})
	if s := p.tx.jobs[parked.Job.ID].State; s != job.Queued {
		t.Errorf("after a Due of the other process the job is %s, want queued", s)
	}
}

// A process that opened the store later continues with the turns that the others give.
func TestFollowerContinuesTurns(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.submit(0, "k", false)
	p.submit(0, "other", false)
	p.apply(0, &store.Claim{Queue: "q", Tokens: []job.Token{{1}}, LeaseFor: time.Minute}) // now k owes a turn
	// An opening does not know the turns of keys without jobs.
	load := p.processes[1].Load()
	load.Counts("q", p.processes[0].Counts()["q"])
	load.Ready([]byte("q"), nil, []byte("other"), job.DefaultPriority, 0, p.tx.now)
	first := p.submit(0, "k", false)
	second := p.submit(1, "k", false)
	third := p.submit(0, "k", false)
	a, b, c := p.tx.jobs[first.Job.ID].Turn, p.tx.jobs[second.Job.ID].Turn, p.tx.jobs[third.Job.ID].Turn
	if a == 0 || b-a != c-b || b <= a {
		t.Errorf("the jobs of a key have the turns %d, %d, %d, want three in a row", a, b, c)
	}
}
