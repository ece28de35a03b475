package move

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// installation is a SQLite store with a directory of files, filled at random.
type installation struct {
	tb      testing.TB
	rand    *rand.Rand
	dir     string
	now     time.Time
	store   *sqlite.Store
	owners  []job.Owner
	limits  map[string]job.Limits
	keys    []string
	sets    []store.RowSet
	tokens  []job.Lease
	deleted []store.OwnedID
}

func (in *installation) path() string  { return filepath.Join(in.dir, "jobs.db") }
func (in *installation) files() string { return filepath.Join(in.dir, "files") }

func (in *installation) open() {
	in.tb.Helper()
	s, err := sqlite.Open(context.Background(), in.path(), sqlite.Options{Clock: func() time.Time { return in.now }, Unsynced: true})
	if err != nil {
		in.tb.Fatal(err)
	}
	in.store = s
}

func (in *installation) close() {
	in.tb.Helper()
	if err := in.store.Close(); err != nil {
		in.tb.Fatal(err)
	}
}

func (in *installation) apply(ops ...any) {
	in.tb.Helper()
	b := store.NewBatch()
	b.Limits = in.limits
	for _, op := range ops {
		b.Add(op)
	}
	if err := store.Commit(context.Background(), in.store, b); err != nil {
		in.tb.Fatal(err)
	}
}

// newInstallation makes a closed installation with about so many jobs, in every state, with every
// kind of row.
func newInstallation(tb testing.TB, seed uint64, jobs int) *installation {
	tb.Helper()
	in := &installation{
		tb: tb, rand: rand.New(rand.NewPCG(seed, 1)), dir: tb.TempDir(), now: time.Now().Truncate(time.Second).Add(-time.Hour),
		owners: []job.Owner{{User: "local"}, {Tenant: "shop", User: "ann"}, {Tenant: "shop", User: "bob ÄÖ/%"}, {Tenant: "bank"}},
		limits: map[string]job.Limits{"b": {KeyRunning: 1}, "c": {Running: 3}},
	}
	in.open()
	for n := range jobs {
		in.now = in.now.Add(100 * time.Millisecond)
		in.submit(n)
		if n%3 == 0 {
			in.claim()
		}
		if n%97 == 96 {
			in.now = in.now.Add(20 * time.Second)
			in.apply(&store.Due{Limit: 100})
		}
	}
	in.apply(&store.Pause{Queue: "d", Paused: true}, &store.Pause{Queue: "never", Paused: true})
	in.close()
	return in
}

// id makes an id of this moment.
func (in *installation) id() job.ID {
	id := job.NewID()
	copy(id[:], binary.BigEndian.AppendUint64(nil, uint64(in.now.UnixMilli())<<16)[:6])
	return id
}

func newTokens(n int) (list []job.Token) {
	for range n {
		list = append(list, job.NewToken())
	}
	return list
}

func (in *installation) pick(of ...string) string { return of[in.rand.IntN(len(of))] }

func (in *installation) text(limit int) string {
	return strings.Repeat(in.pick("tide ", "\x00\xff ", "ß", "moon,"), in.rand.IntN(limit/4)+1)
}

func (in *installation) submit(n int) {
	r := in.rand
	j := job.Job{
		ID: in.id(), Owner: in.owners[r.IntN(len(in.owners))], Queue: in.pick("a", "b", "c", "d"), Key: in.pick("", "k", "l"),
		Priority: r.IntN(10), MaxAttempts: 1 + r.IntN(4), Resource: in.pick("", "", "", "gpt"), Tally: in.pick("", "", "import"),
	}
	j.Policy.Timeouts.Lease = 30 * time.Second
	j.Policy.Retry.Backoff, j.Policy.Keep = 2*time.Second, job.DefaultKeep
	s := &store.Submit{Job: j, Input: []byte(in.text(2000))}
	if r.IntN(3) == 0 {
		s.Job.Metadata, s.Job.Trace = map[string]string{"n": fmt.Sprint(n)}, "00-1"
	}
	if r.IntN(5) == 0 {
		s.Job.Policy.Timeouts.Abandon = 10 * time.Minute
	}
	if r.IntN(7) == 0 {
		s.Job.Policy.Timeouts.Queue = time.Hour
	}
	if r.IntN(6) == 0 {
		s.Delay = time.Duration(1+r.IntN(3000)) * time.Second
	}
	if r.IntN(4) == 0 {
		key := fmt.Sprintf("key %d", n)
		in.keys = append(in.keys, key)
		s.Idempotency = &store.Idempotency{Key: key, Hash: sha256.Sum256([]byte(key)), Keep: 24 * time.Hour}
	}
	if r.IntN(4) == 0 {
		of := store.RowSet{Owner: j.Owner, Kind: "conversation", Parent: in.pick("", "p")}
		in.sets = append(in.sets, of)
		s.Rows = []store.Row{{Owner: of.Owner, Kind: of.Kind, Parent: of.Parent, ID: fmt.Sprint(n), Body: []byte(in.text(400))}}
	}
	if r.IntN(10) == 0 {
		s.Job.Files = in.makeFiles(j.ID)
	}
	if s.Delay == 0 && r.IntN(4) == 0 {
		s.Token, s.LeaseFor, s.Worker, s.Process = job.NewToken(), time.Minute, "direct", job.Process{1}
	}
	in.apply(s)
	if s.Err == nil && s.Job.State == job.Running {
		in.work(&s.Job, s.Token)
	}
	if r.IntN(12) == 0 {
		in.apply(&store.Delete{Owner: j.Owner, ID: j.ID})
		in.deleted = append(in.deleted, store.OwnedID{Owner: j.Owner, ID: j.ID})
	}
}

func (in *installation) makeFiles(id job.ID) (list []job.File) {
	dir := filepath.Join(in.files(), id.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		in.tb.Fatal(err)
	}
	for _, name := range []string{"a.txt", "ü b.bin"} {
		data := []byte(strings.Repeat(in.text(100), in.rand.IntN(9000)))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			in.tb.Fatal(err)
		}
		sum := sha256.Sum256(data)
		list = append(list, job.File{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	}
	return list
}

func (in *installation) claim() {
	c := &store.Claim{Queue: in.pick("a", "b", "c"), LeaseFor: time.Minute, Worker: "w", Process: job.Process{2}, Tokens: newTokens(2)}
	in.apply(c)
	for i := range c.Claimed {
		in.work(&c.Claimed[i].Job, c.Claimed[i].Token)
	}
}

// work appends output, and ends most attempts.
func (in *installation) work(j *job.Job, token job.Token) {
	r := in.rand
	l := job.Lease{Job: j.ID, Token: token}
	in.tokens = append(in.tokens, l)
	seq := j.Cursor
	entries := func(kind job.Kind, text string) []job.Entry {
		seq++
		return []job.Entry{{Seq: seq, Attempt: j.Attempt, Kind: kind, Events: 1, Data: []byte(text)}}
	}
	if r.IntN(2) == 0 {
		in.apply(&store.Append{Lease: l, Entries: entries(job.KindAttempt, `{"attempt":1}`)})
	}
	for range r.IntN(12) {
		op := &store.Append{Lease: l, Entries: entries(job.KindText, in.text(1+r.IntN(600)+4))}
		if r.IntN(3) == 0 {
			op.Progress = &job.Progress{Percent: float64(r.IntN(100)), Status: "on"}
		}
		in.apply(op)
	}
	end := &store.Finish{Lease: l, Usage: []byte(`{"tokens":3}`)}
	switch r.IntN(8) {
	case 0, 1, 2:
		end.To, end.Result = job.Succeeded, &job.Result{ContentType: "text/plain", Body: []byte(in.text(3000))}
	case 3:
		end.To, end.Failure = job.Failed, &job.Failure{Code: "broken", Message: in.text(40), Attempt: j.Attempt}
	case 4:
		end.To, end.Delay, end.Lost = job.Scheduled, time.Duration(1+r.IntN(4))*time.Second, r.IntN(2) == 0
		end.Failure = &job.Failure{Code: "again", Message: "m", Retryable: true, Attempt: j.Attempt}
	case 5:
		in.apply(&store.Cancel{Owner: j.Owner, ID: j.ID})
		return
	case 6:
		if r.IntN(3) > 0 {
			return // it runs on
		}
		in.apply(&store.Delete{Owner: j.Owner, ID: j.ID})
		return
	case 7:
		end.To, end.Refund = job.Queued, true
	}
	in.apply(end)
	if end.State == job.Failed && r.IntN(4) == 0 {
		in.apply(&store.Retry{Owner: j.Owner, ID: j.ID})
	}
}
