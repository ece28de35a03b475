package sqlite

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// producer is a running job and the output that it has sent.
type producer struct {
	d        *harness
	lease    job.Lease
	attempt  int
	log      []job.Entry
	progress job.Progress
}

// newProducer submits a job that is leased from the start.
func (d *harness) newProducer() *producer {
	d.Helper()
	token := job.NewToken()
	id := d.submit(func(s *store.Submit) { s.Token, s.LeaseFor, s.Worker = token, time.Minute, "w" })
	return &producer{d: d, lease: job.Lease{Job: id, Token: token}, attempt: 1}
}

// nextEntries returns the job's next entries.
func (s *producer) nextEntries(kind job.Kind, texts ...string) (entries []job.Entry) {
	for i, text := range texts {
		entries = append(entries, job.Entry{Seq: int64(len(s.log) + i + 1), Attempt: s.attempt, Kind: kind, Events: 1, Data: []byte(text)})
	}
	return entries
}

// appendOp returns an append for the caller to commit, and notes it in the log.
func (s *producer) appendOp(p *job.Progress, entries ...job.Entry) *store.Append {
	s.log = append(s.log, entries...)
	if p != nil {
		s.progress = *p
	}
	return &store.Append{Lease: s.lease, Entries: entries, Progress: p}
}

func (s *producer) appendText(texts ...string) {
	s.d.Helper()
	op := s.appendOp(nil, s.nextEntries(job.KindText, texts...)...)
	s.d.apply(op)
	if op.Err != nil {
		s.d.Fatal(op.Err)
	}
}

func (s *producer) finish(last ...job.Entry) {
	s.d.Helper()
	s.log = append(s.log, last...)
	op := &store.Finish{Lease: s.lease, To: job.Succeeded, Entries: last}
	s.d.apply(op)
	if op.Err != nil {
		s.d.Fatal(op.Err)
	}
}

// check compares what the store returns for the job with what was appended.
func (s *producer) check(tb rapid.TB, after int64, maxBytes int) {
	tb.Helper()
	ctx := s.d.Context()
	j, entries, err := s.d.Output(ctx, testOwner, s.lease.Job, after, maxBytes)
	if err != nil {
		tb.Fatal(err)
	}
	want := s.log[min(after, int64(len(s.log))):]
	if len(entries) > len(want) || len(want) > 0 && (len(entries) == 0 || !reflect.DeepEqual(entries, want[:len(entries)])) {
		tb.Fatalf("after %d the log has %d entries, want %d: %.300v, want %.300v", after, len(entries), len(want), entries, want)
	}
	size := 0
	for i := range entries {
		size += entryOverhead + len(entries[i].Data)
	}
	if len(entries) > 1 && size > maxBytes || len(entries) < len(want) && size+entryOverhead+len(want[len(entries)].Data) <= maxBytes {
		tb.Fatalf("of %d entries %d were read, with %d bytes; the limit is %d", len(want), len(entries), size, maxBytes)
	}
	bytes, text := 0, ""
	for i := range s.log {
		bytes += len(s.log[i].Data)
		switch s.log[i].Kind {
		case job.KindAttempt:
			text = ""
		case job.KindText:
			text += string(s.log[i].Data)
		}
	}
	if j.Cursor != int64(len(s.log)) || j.OutputBytes != int64(bytes) || j.State == job.Running && j.Progress != s.progress {
		tb.Fatalf("the job's cursor is %d, its bytes %d, its progress %v; want %d, %d, %v", j.Cursor, j.OutputBytes, j.Progress, len(s.log), bytes, s.progress)
	}
	if _, got, err := s.d.Text(ctx, testOwner, s.lease.Job, 1<<20); err != nil || got != text {
		tb.Fatalf("the text is %.100q, want %.100q: %v", got, text, err)
	}
}

// Reads return exactly what was appended, across attempts, openings and failed commits.
func TestLogReturnsAppendedEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("runs random histories")
	}
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		d := newHarness(t)
		defer func() { _ = d.Store.Close() }()
		s := d.newProducer()
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				s.check(r, rapid.Int64Range(0, int64(len(s.log))).Draw(r, "after"), rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(r, "bytes"))
			},
			"append": func(r *rapid.T) {
				kind := rapid.SampledFrom([]job.Kind{job.KindText, job.KindText, job.KindJSON, job.KindLog}).Draw(r, "kind")
				sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 5, 100, fullBlock - 1, fullBlock, 3 * fullBlock}), 1, 4).Draw(r, "sizes")
				var texts []string
				for _, n := range sizes {
					texts = append(texts, strings.Repeat(string(rune('a'+len(s.log)%26)), n))
				}
				var p *job.Progress
				if rapid.Bool().Draw(r, "progress") {
					p = &job.Progress{Percent: float64(len(s.log) % 100), Status: "on"}
				}
				d.apply(s.appendOp(p, s.nextEntries(kind, texts...)...))
			},
			"retry": func(*rapid.T) {
				d.apply(&store.Finish{Lease: s.lease, To: job.Queued, Refund: true, Entries: s.appendOp(nil, s.nextEntries(job.KindText, "last")...).Entries})
				claim := newClaim(1)
				d.apply(claim)
				s.lease, s.progress = claim.Claimed[0].Lease(), job.Progress{}
				s.attempt++
				d.apply(s.appendOp(nil, append(s.nextEntries(job.KindAttempt, ""), job.Entry{Seq: int64(len(s.log) + 2), Attempt: s.attempt, Kind: job.KindText, Events: 1, Data: []byte("anew")})...))
			},
			"reopen": func(*rapid.T) {
				_ = d.Store.Close()
				d.open()
			},
			"fail commit": func(*rapid.T) { d.Store.staleMemory = true }, // what a failed commit sets
		})
		s.finish(s.nextEntries(job.KindText, "the", "end")...)
		s.check(r, 0, 1<<20)
		if n := d.count("SELECT count(*) FROM output WHERE seq > (SELECT cursor FROM jobs)"); n != 0 {
			r.Fatalf("%d rows of the log are past its end", n)
		}
	})
}

// Small appends write no rows of logs while the jobs run, and one row for each job at its end.
func TestManyJobsShareTail(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	var all []*producer
	for range 50 {
		all = append(all, d.newProducer())
	}
	const rounds, size = 8, 24
	for i := range rounds {
		b := store.NewBatch()
		for _, s := range all {
			b.Add(s.appendOp(nil, s.nextEntries(job.KindText, strings.Repeat(fmt.Sprint(i), size))...))
		}
		if err := store.Commit(t.Context(), d.Store, b); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.count("SELECT count(*) FROM output"); n != 0 {
		t.Errorf("the logs have %d rows before the jobs end", n)
	}
	for _, s := range all {
		s.check(t, 3, 1<<20)
		s.finish(s.nextEntries(job.KindText, "end")...)
	}
	if n := d.count("SELECT count(*) FROM output"); n != int64(len(all)) {
		t.Errorf("the output of %d jobs has %d rows", len(all), n)
	}
	if (&tx{Store: d.Store}).oldestPending() != nil || len(d.tailViews.views) > 0 {
		t.Error("ended jobs are still in memory")
	}
}

// Unused rows are deleted, a few at a time, while a job appends.
func TestTailIsTrimmed(t *testing.T) {
	if testing.Short() {
		t.Skip("appends thousands of entries")
	}
	t.Parallel()
	d := newHarness(t)
	s := d.newProducer()
	for range 3 * minTrim {
		s.appendText("x")
	}
	for range 8 * minTrim {
		s.appendText("some ten b")
	}
	if n := d.count("SELECT count(*) FROM tail"); n > 2*minTrim {
		t.Errorf("the tail has %d rows, but needs only the rows of one block", n)
	}
	s.check(t, 0, 1<<20)
}

// A job with little output does not keep the unused rows of others in the tail.
func TestSlowJobDoesNotBlockTailTrim(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	slow, quick := d.newProducer(), d.newProducer()
	d.apply(slow.appendOp(&job.Progress{Percent: 7}, slow.nextEntries(job.KindText, "well")...))
	for range 2 * minTrim {
		quick.appendText("word")
	}
	if d.tail.firstRow != 1 {
		t.Fatal("needed rows were deleted")
	}
	d.tail.bytes += maxTailBytes
	quick.appendText("word")
	quick.appendText("word")
	if d.tail.firstRow <= minTrim/2 {
		t.Errorf("unused rows are kept: the first row is %d, the last %d", d.tail.firstRow, d.tail.lastRow)
	}
	slow.check(t, 0, 1<<20)
	quick.check(t, 0, 1<<20)
	_ = d.Store.Close()
	d.open()
	slow.check(t, 0, 1<<20)
	quick.check(t, 0, 1<<20)
	slow.appendText("then")
	slow.finish()
	slow.check(t, 0, 1<<20)
}

// A job with damaged rows in the tail fails. Its entries before the damage are readable.
func TestDamagedTailFailsJob(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"damaged bytes":    "UPDATE tail SET data = x'01' WHERE n = 2",
		"missing row":      "DELETE FROM tail WHERE n = 2",
		"wrong number":     "UPDATE tail SET seq = 7 WHERE n = 2",
		"damaged progress": "UPDATE tail SET progress = x'7b' WHERE n = 2",
		"empty row":        "UPDATE tail SET data = x'' WHERE n = 2",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			s, sound := d.newProducer(), d.newProducer()
			for range 3 {
				s.appendText("word")
			}
			sound.appendText("sound")
			if err := sqlitex.ExecuteTransient(d.conn, sql, nil); err != nil {
				t.Fatal(err)
			}
			_ = d.Store.Close()
			d.open()
			d.checkFailed(d.apply(), s.lease.Job)
			s.log = s.log[:1]
			s.check(t, 0, 1<<20)
			sound.check(t, 0, 1<<20)
			sound.finish()
		})
	}
}

// While a job appends, every read returns a prefix of its output, never shorter than the read
// before.
func TestReadsDuringAppendsSeeWholePrefix(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := d.newProducer()
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			cursor := int64(0)
			for last := false; !last; {
				select {
				case <-stop:
					last = true
				default:
				}
				j, entries, err := d.Output(d.Context(), testOwner, s.lease.Job, 0, 1<<20)
				if err != nil || j.Cursor < cursor || int64(len(entries)) != j.Cursor {
					t.Errorf("%d entries were read, the cursor is %d, before it was %d: %v", len(entries), j.Cursor, cursor, err)
					return
				}
				cursor = j.Cursor
				for i := range entries {
					if entries[i].Seq != int64(i+1) || string(entries[i].Data) != fmt.Sprint("word ", i+1) {
						t.Errorf("entry %d is %d, %q", i+1, entries[i].Seq, entries[i].Data)
						return
					}
				}
			}
		})
	}
	for i := range 1000 {
		s.appendText(fmt.Sprint("word ", i+1))
	}
	close(stop)
	reading.Wait()
}
