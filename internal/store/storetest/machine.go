package storetest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// runModel commits random batches to the store and to a model of it, and compares all answers
// and reads.
func runModel(t *testing.T, s Suite) {
	runRandomly(t, s, 1, checks{full: 40, short: 2}, func(m *machine) map[string]func(*rapid.T) {
		return map[string]func(*rapid.T){
			"":       func(*rapid.T) { m.model.compare() },
			"batch":  m.batch,
			"upkeep": m.upkeep,
			"limits": m.changeLimits,
			"again":  m.repeat,
			"fail":   m.fail,
			"reopen": m.reopen,
			"pass":   m.pass,
		}
	})
}

// checks is the number of random histories of a test, without and with -short.
type checks struct{ full, short int }

// runRandomly draws histories from the steps of a machine. Each one has new stores.
func runRandomly(t *testing.T, s Suite, stores int, n checks, steps func(*machine) map[string]func(*rapid.T)) {
	limit := n.full
	if testing.Short() {
		limit = n.short
		if s.Slow {
			limit = 1
		}
	}
	// The flag belongs to all tests of the process, which run in parallel: only read it. A
	// number on the command line replaces the limit.
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "rapid.checks" {
			limit = math.MaxInt
		}
	})
	dir := t.TempDir()
	runs, failed := 0, false
	rapid.Check(t, func(r *rapid.T) {
		// Rapid repeats a failed run to find a smaller one: those repetitions are not limited.
		if runs++; runs > limit && !failed {
			return
		}
		defer func() { failed = failed || r.Failed() }()
		path := filepath.Join(dir, fmt.Sprint(runs))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(path)
		w := newHarnessAt(t, r, s, filepath.Join(path, "store"), stores)
		defer func() { _ = w.close() }()
		m := &machine{T: r, harness: w, model: newModel(w)}
		m.setLimits("a", m.drawLimits(r))
		r.Repeat(steps(m))
	})
}

// machine draws the next operations.
type machine struct {
	*rapid.T
	*harness
	model *model
	last  *store.Batch
}

// passes are durations that no sum of the durations of ops equals, so that the clock never
// stops exactly when something is due.
var passes = []time.Duration{1009 * time.Millisecond, 31013 * time.Millisecond, 601007 * time.Millisecond, 7207001 * time.Millisecond}

func (m *machine) pass(r *rapid.T) {
	m.harness.advance(rapid.SampledFrom(passes).Draw(r, "passes"))
}

// reopen sometimes closes and opens the store. Not always, because it takes long.
func (m *machine) reopen(r *rapid.T) {
	if rapid.IntRange(0, 5).Draw(r, "reopens") == 0 {
		m.harness.reopen()
		if m.last != nil && !wrote(m.last) {
			m.last = nil // a store may forget a batch that changed nothing
		}
	}
}

// fail commits a batch that fails, because the id of its submit exists. A store may then load
// its in-memory state again.
func (m *machine) fail(r *rapid.T) {
	var used []job.ID
	for _, id := range m.model.order {
		if m.model.jobs[id] != nil {
			used = append(used, id)
		}
	}
	if len(used) == 0 {
		r.Skip("no id is in use")
	}
	s := m.newSubmit(inQueue("a"))
	s.Job.ID = rapid.SampledFrom(used).Draw(r, "used")
	s.Job.Owner = m.model.jobs[s.Job.ID].Owner
	if err := m.commitTo(batchOf(s)); !errors.Is(err, store.ErrData) {
		m.Fatalf("a submit whose id is in use: %v", err)
	}
	m.last = nil // a batch may be repeated only before any other
}

// wrote reports whether an op of the batch certainly changed something.
func wrote(b *store.Batch) bool {
	for _, op := range b.Submits {
		if op.Err == nil && op.Existing == nil {
			return true
		}
	}
	for _, op := range b.Finishes {
		if op.Err == nil {
			return true
		}
	}
	return false
}

// batch commits a few random ops.
func (m *machine) batch(r *rapid.T) {
	var ops []any
	for range rapid.IntRange(1, 6).Draw(r, "ops") {
		ops = append(ops, m.op(r))
	}
	if rapid.IntRange(0, 4).Draw(r, "group") == 0 {
		var group []*store.Submit
		for range rapid.IntRange(1, 3).Draw(r, "size") {
			group = append(group, m.drawSubmit(r))
		}
		ops = append(ops, grouped(group...)...)
	}
	if rapid.Bool().Draw(r, "room") {
		m.room = map[string]int{"m": rapid.IntRange(0, 2).Draw(r, "of m"), "n": rapid.IntRange(0, 1).Draw(r, "of n")}
	}
	m.commitBoth(ops)
	m.room = nil
}

// upkeep commits a due or two prunes. They are in batches of their own, because the contract
// does not define which jobs are due after other ops of the same batch.
func (m *machine) upkeep(r *rapid.T) {
	if rapid.Bool().Draw(r, "due") {
		m.commitBoth([]any{newDue()})
		return
	}
	early := rapid.IntRange(0, 5).Draw(r, "early") == 0
	for range 2 {
		p := newPrune()
		p.Early = early
		m.commitBoth([]any{p})
	}
}

func (m *machine) commitBoth(ops []any) {
	b := batchOf(ops...)
	m.commitAll(func() { m.commit(b) }, b)
	m.last = b
}

// commitAll applies batches to the model, commits them to the store and compares the answers. No
// batch may depend on another.
func (m *machine) commitAll(commit func(), batches ...*store.Batch) {
	m.model.entriesBefore, m.model.removed = m.model.entries, nil
	m.model.room = maps.Clone(m.room)
	var checks []func()
	for _, b := range batches {
		checks = append(checks, m.expectBatch(b)...)
	}
	commit()
	for _, check := range checks {
		check()
	}
	var removed []job.ID
	for _, b := range batches {
		removed = append(removed, b.Removed...)
	}
	if got, want := sorted(removed), sorted(m.model.removed); !slices.Equal(got, want) {
		m.Fatalf("a commit removed the jobs with files %v, want %v", got, want)
	}
	m.model.adoptParked(batches...)
	for _, b := range batches {
		for _, op := range b.Claims {
			m.model.claimed(op)
		}
		m.countsAnswered(b)
		for _, change := range changesOf(b) {
			if change.Revision >= m.model.changes[change.ID].Revision {
				m.model.changes[change.ID] = change
			}
		}
	}
	m.model.compareTallies()
}

// expectBatch applies a batch to the model, without its claims. It returns functions that check
// the answers.
func (m *machine) expectBatch(b *store.Batch) (checks []func()) {
	for _, op := range opsOf(b) {
		switch op := op.(type) {
		case *store.Claim:
		case *store.Due:
			checks = append(checks, m.model.expect(op))
		case *store.Submit:
			if op.Group == nil {
				checks = append(checks, m.model.submit(op))
			} else if group := groupOf(b, op.Group); group[0] == op {
				checks = append(checks, m.model.group(group))
			}
		default:
			checks = append(checks, m.model.applyAndUnpark(op))
		}
	}
	return checks
}

// countsAnswered checks that a batch answers the counts of the queues that it names, and that all
// answered counts are right.
func (m *machine) countsAnswered(b *store.Batch) {
	named := map[string]bool{}
	for _, op := range b.Pauses {
		named[op.Queue] = true
	}
	for _, op := range b.Submits {
		named[op.Job.Queue] = true
	}
	for _, op := range b.Claims {
		named[op.Queue] = true
	}
	for q := range named {
		if _, ok := b.Counts[q]; !ok {
			m.Fatalf("a commit that names the queue %s does not answer its counts", q)
		}
	}
	for q, c := range b.Counts {
		if *m.model.count(q) != c {
			m.Fatalf("a commit answers the counts %+v of %s, want %+v", c, q, *m.model.count(q))
		}
	}
}

// repeat commits the last batch a second time, as if its outcome had been unknown.
func (m *machine) repeat(r *rapid.T) {
	if m.last == nil {
		r.Skip("nothing was committed yet")
	}
	before := m.answers(m.last)
	m.commit(m.last)
	m.sameStored("a batch committed again answers otherwise", before, m.answers(m.last))
}

// A harness and a run of rapid both have these methods. The run must be the one that fails.

func (m *machine) Helper()                   { m.T.Helper() }
func (m *machine) Errorf(f string, a ...any) { m.T.Errorf(f, a...) }
func (m *machine) Fatalf(f string, a ...any) { m.T.Fatalf(f, a...) }

// op draws one op.
func (m *machine) op(r *rapid.T) any {
	switch rapid.SampledFrom([]string{
		"submit", "submit", "submit", "claim", "claim", "renew", "append", "append", "finish", "finish", "finish", "cancel", "abandon", "presence", "delete", "retry", "pause",
	}).Draw(r, "op") {
	case "submit":
		return m.drawSubmit(r)
	case "pause":
		return newPause(m.drawQueue(r), rapid.IntRange(0, 2).Draw(r, "pauses") == 0)
	case "claim":
		c := m.newClaim(m.drawQueue(r), rapid.IntRange(0, 4).Draw(r, "tokens"))
		if rapid.IntRange(0, 3).Draw(r, "of one tenant") == 0 {
			o := m.drawOwner(r)
			c.Tenant = &o.Tenant
		}
		return c
	case "renew":
		return newRenew(m.drawLease(r), rapid.SampledFrom([]time.Duration{time.Second, leaseFor, time.Hour}).Draw(r, "for"))
	case "append":
		l := m.drawLease(r)
		return &store.Append{Lease: l, Entries: m.drawEntries(r, l, 1), Progress: m.drawProgress(r)}
	case "finish":
		return m.drawFinish(r)
	case "abandon":
		return &store.Cancel{Owner: m.drawOwner(r), ID: m.drawJob(r), IfAbandoned: true}
	case "presence":
		return &store.Presence{Jobs: []job.ID{m.drawJob(r), m.drawJob(r)}, Owners: []job.Owner{m.drawOwner(r)}[:rapid.IntRange(0, 1).Draw(r, "owners")]}
	case "cancel":
		return &store.Cancel{Owner: m.drawOwner(r), ID: m.drawJob(r)}
	case "delete":
		return &store.Delete{Owner: m.drawOwner(r), ID: m.drawJob(r)}
	default:
		return &store.Retry{Owner: m.drawOwner(r), ID: m.drawJob(r)}
	}
}

func (m *machine) drawLimits(r *rapid.T) job.Limits {
	return job.Limits{
		Running:    rapid.SampledFrom([]int{0, 0, 2}).Draw(r, "running"),
		KeyRunning: rapid.SampledFrom([]int{0, 1, 1, 2}).Draw(r, "of a key running"),
		KeyWaiting: rapid.SampledFrom([]int{0, 0, 4}).Draw(r, "of a key waiting"),
	}
}

// changeLimits raises or removes the limits, which the next due applies.
func (m *machine) changeLimits(r *rapid.T) {
	l := m.limits["a"]
	if l.KeyRunning == 0 || rapid.IntRange(0, 3).Draw(r, "raises") > 0 {
		r.Skip("the limit stays")
	}
	l.KeyRunning = rapid.SampledFrom([]int{l.KeyRunning + 1, l.KeyRunning + 1, 0}).Draw(r, "to")
	m.setLimits("a", l)
	m.commitBoth([]any{newDue()})
}

// groupOf lists the submits of a group.
func groupOf(b *store.Batch, g *store.Group) (group []*store.Submit) {
	for _, op := range b.Submits {
		if op.Group == g {
			group = append(group, op)
		}
	}
	return group
}

func sorted(ids []job.ID) []job.ID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b job.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

func (m *machine) drawQueue(r *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "a", "b"}).Draw(r, "queue")
}

func (m *machine) drawOwner(r *rapid.T) job.Owner {
	return rapid.SampledFrom([]job.Owner{mine, mine, mine, theirs, elsewhere}).Draw(r, "owner")
}

// drawJob draws a job that exists or was deleted, or an unknown one.
func (m *machine) drawJob(r *rapid.T) job.ID {
	i := rapid.IntRange(0, len(m.model.order)).Draw(r, "job")
	if i == len(m.model.order) {
		return m.id()
	}
	return m.model.order[len(m.model.order)-1-i]
}

// drawLease draws a current lease or an ended one.
func (m *machine) drawLease(r *rapid.T) job.Lease {
	var leased []job.Lease
	for _, id := range m.model.order {
		if j := m.model.jobs[id]; j != nil && j.State == job.Running {
			leased = append(leased, job.Lease{Job: id, Token: j.token})
		}
	}
	if len(leased) > 0 && rapid.IntRange(0, 9).Draw(r, "holds") > 0 {
		return rapid.SampledFrom(leased).Draw(r, "lease")
	}
	l := job.Lease{Job: m.drawJob(r)}
	if j := m.model.jobs[l.Job]; j != nil && len(j.tokens) > 0 && rapid.Bool().Draw(r, "had") {
		l.Token = rapid.SampledFrom(j.tokens).Draw(r, "token")
	}
	return l
}

// drawEntries draws entries that mostly continue the log.
func (m *machine) drawEntries(r *rapid.T, l job.Lease, least int) []job.Entry {
	var cursor int64
	if j := m.model.jobs[l.Job]; j != nil {
		cursor = j.Cursor
	}
	after := cursor + int64(rapid.SampledFrom([]int{0, 0, 0, 0, 1, -1, -2}).Draw(r, "after"))
	texts := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "bc", "\x00"}), least, 3).Draw(r, "texts")
	return textEntries(1, max(after, 0), texts...)
}

func (m *machine) drawProgress(r *rapid.T) *job.Progress {
	if rapid.Bool().Draw(r, "progress") {
		return nil
	}
	return &job.Progress{Percent: float64(rapid.IntRange(0, 100).Draw(r, "percent")), Status: "Working"}
}

func (m *machine) drawSubmit(r *rapid.T) *store.Submit {
	s := m.newSubmit(inQueue(m.drawQueue(r)), ownedBy(m.drawOwner(r)),
		withKey(rapid.SampledFrom([]string{"", "k", "l"}).Draw(r, "key")),
		withPriority(rapid.SampledFrom([]int{5, 5, 1, 9}).Draw(r, "priority")))
	s.Job.Resource = rapid.SampledFrom([]string{"", "m", "n", "o"}).Draw(r, "needs")
	s.Input = []byte(inputOf(s.Job.ID))
	s.Job.InputBytes = int64(rapid.IntRange(0, 2).Draw(r, "weighs"))
	if rapid.IntRange(0, 3).Draw(r, "files") == 0 {
		withFiles("a", "b")(s)
	}
	if rapid.IntRange(0, 3).Draw(r, "tallied") == 0 {
		s.Job.Tally = countedOnly
	}
	if rapid.IntRange(0, 3).Draw(r, "abandon") == 0 {
		mayBeAbandoned(s)
	}
	switch rapid.IntRange(0, 5).Draw(r, "kind") {
	case 0:
		delayed(5 * time.Second)(s)
	case 1:
		leasedAs(m.token())(s)
	case 2:
		withQueueTimeout(20 * time.Second)(s)
	}
	if rapid.IntRange(0, 3).Draw(r, "once") == 0 {
		withIdempotency(rapid.SampledFrom([]string{"x", "y"}).Draw(r, "idempotency key"), rapid.SampledFrom([]string{"h", "h", "i"}).Draw(r, "hash"))(s)
		if k := m.model.keys[ownedKey{s.Job.Owner, s.Idempotency.Key}]; k != nil && !k.until.After(m.now()) {
			s.Idempotency = nil // it may be forgotten already: the contract does not say
		}
	}
	return s
}

func (m *machine) drawFinish(r *rapid.T) *store.Finish {
	l := m.drawLease(r)
	f := newFinish(l, rapid.SampledFrom([]job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued}).Draw(r, "to"))
	if rapid.IntRange(0, 3).Draw(r, "lapsed") == 0 {
		f.OnlyIf = store.LapsedOnly
	}
	if j := m.model.jobs[l.Job]; j != nil && j.Losses == j.Cleared { // the model has no suspects
		f.Lost = rapid.IntRange(0, 3).Draw(r, "lost") == 0
	}
	f.Entries, f.Progress = m.drawEntries(r, l, 0), m.drawProgress(r)
	if rapid.Bool().Draw(r, "usage") {
		f.Usage = []byte(`{"tokens":1}`)
	}
	if !f.To.Ended() && rapid.Bool().Draw(r, "refund") {
		f.Refund = true
		f.Failure = &job.Failure{Code: "told_to_wait", Message: "not now", Retryable: true, Attempt: 1}
	}
	return f
}
