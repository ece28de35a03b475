package sqlite

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// A page ends early if it has looked at many jobs. A short list is complete.
func TestListNeverCutsShortList(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true, Readers: 1})
	others := job.Filter{Owner: job.Owner{User: "u"}, Metadata: map[string]string{"a": "b"}, Limit: 10}
	for _, c := range []struct {
		more int
		cut  bool
	}{{maxVisited, false}, {10, true}} {
		a.addEnded(c.more, 1)
		if page, next, err := a.List(t.Context(), others); err != nil || len(page) > 0 || next != (job.ID{}) != c.cut {
			t.Errorf("with %d more rows the list has %d jobs and the cursor %s: %v", c.more, len(page), next, err)
		}
	}
}

// addListed inserts rows of ended jobs directly: of a million of them, none goes through a
// batch. Every field of row i is a function of i.
func (a *bulkStore) addListed(n int, owner job.Owner, field func(i int) (queue, key string, state job.State, code string)) {
	a.tb.Helper()
	insert := newQuery(a.conn, `INSERT INTO jobs (n, id, tenant, usr, queue, key, priority, state, turn, attempt, max_attempts,
		created, run_at, finished, failure, code, policy) VALUES (?,?,?,?,?,?,5,?,0,1,1,?,?,?,?,?,?)`)
	policy := codec.EncodePolicy(job.Policy{})
	// One transaction is faster than one for each row.
	if err := a.q.begin.run(); err != nil {
		a.tb.Fatal(err)
	}
	for i := range n {
		queue, key, state, code := field(i)
		at := a.now.Add(time.Duration(i) * time.Millisecond)
		id := idAt(at.UnixMilli())
		id[15] = byte(a.lastJobRow)
		a.lastJobRow++
		q := insert.int(a.lastJobRow).id(&id).text(owner.Tenant).text(owner.User).text(queue).text(key).int(int64(state)).time(at).time(at).time(at)
		if code == "" {
			q.failure(nil)
		} else {
			q.failure(&job.Failure{Code: code})
		}
		if err := q.blob(policy).run(); err != nil {
			a.tb.Fatal(err)
		}
	}
	if err := a.q.commit.run(); err != nil {
		a.tb.Fatal(err)
	}
}

// listedRow gives one job in 20,000 a rare queue, key, state and code, each at another place.
func listedRow(i int) (queue, key string, state job.State, code string) {
	queue, key, state = "common", fmt.Sprint("k", i%100), job.Succeeded
	if i%3 == 0 {
		state, code = job.Failed, "upstream_error"
	}
	switch i % 20_000 {
	case 1:
		queue = "rare"
	case 2:
		key = "rare"
	case 5:
		state = job.Cancelled
	case 7:
		state, code = job.Failed, "rare"
	case 8:
		queue, key, state, code = "rare", "rare", job.Failed, "rare"
	}
	return queue, key, state, code
}

func rareFilters(owner job.Owner) map[string]job.Filter {
	rare, common, none := "rare", "k1", "nobody"
	return map[string]job.Filter{
		"rare queue":                {Owner: owner, Queue: "rare"},
		"rare key":                  {Owner: owner, Key: &rare},
		"rare status":               {Owner: owner, Status: job.Cancelled},
		"rare code":                 {Owner: owner, ErrorCode: "rare"},
		"rare queue, status":        {Owner: owner, Queue: "rare", Status: job.Failed},
		"rare queue, common key":    {Owner: owner, Queue: "rare", Key: &common},
		"common queue, rare key":    {Owner: owner, Queue: "common", Key: &rare},
		"common queue, rare status": {Owner: owner, Queue: "common", Status: job.Cancelled},
		"common queue, rare code":   {Owner: owner, Queue: "common", ErrorCode: "rare"},
		"common key, rare status":   {Owner: owner, Key: &common, Status: job.Cancelled},
		"common key, rare code":     {Owner: owner, Key: &common, ErrorCode: "rare"},
		"rare key, common code":     {Owner: owner, Key: &rare, ErrorCode: "upstream_error"},
		"all four":                  {Owner: owner, Queue: "rare", Key: &rare, Status: job.Failed, ErrorCode: "rare"},
		"queue of no job":           {Owner: owner, Queue: "none"},
		"key of no job":             {Owner: owner, Key: &none},
		"status of no job":          {Owner: owner, Status: job.Queued},
		"running":                   {Owner: owner, Status: job.Running},
		"code of no job":            {Owner: owner, ErrorCode: "none"},
		"common status, no code":    {Owner: owner, Status: job.Succeeded, ErrorCode: "upstream_error"},
		"another owner":             {Owner: job.Owner{User: "v"}, Queue: "common"},
	}
}

// A filter by queue, key, status and error code, alone or combined, looks at few jobs besides
// those that it selects, however many there are.
func TestListVisitsFewJobs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a large table")
	}
	a := newBulkStore(t, Options{Unsynced: true, Readers: 1})
	owner := job.Owner{User: "u"}
	a.addListed(60_000, owner, listedRow)
	for name, f := range rareFilters(owner) {
		f.Limit = job.MaxListPage
		page, next, err := a.List(t.Context(), f)
		r := takeReader(t, &a.listReaders)
		if err != nil || next != (job.ID{}) || r.visited > 2*len(page)+20 {
			t.Errorf("%s: a page of %d jobs looked at %d, its cursor is %s: %v", name, len(page), r.visited, next, err)
		}
		a.listReaders.giveBack(r)
	}
}

// No index finds jobs for which two filters alternate. Their page is cut like any other.
func TestListOfAlternatingKeyAndCodeIsCut(t *testing.T) {
	t.Parallel()
	a := newBulkStore(t, Options{Unsynced: true, Readers: 1})
	owner, key := job.Owner{User: "u"}, "k"
	a.addListed(3*maxVisited, owner, func(i int) (string, string, job.State, string) {
		return "q", []string{"k", ""}[i%2], job.Failed, []string{"a", "b"}[i%2]
	})
	f, pages := job.Filter{Owner: owner, Key: &key, ErrorCode: "b", Limit: 10}, 0
	for ; pages == 0 || f.After != (job.ID{}); pages++ {
		page, next, err := a.List(t.Context(), f)
		if err != nil || len(page) > 0 {
			t.Fatalf("a page has %d jobs: %v", len(page), err)
		}
		f.After = next
	}
	if pages < 3 || pages > 4 {
		t.Errorf("the list has %d pages", pages)
	}
}

// The merge of indexes yields the same jobs as a comparison of each job, in any order of states,
// keys, queues and codes.
func TestListEqualsFilteredList(t *testing.T) {
	if testing.Short() {
		t.Skip("compares hundreds of lists")
	}
	t.Parallel()
	d := newHarness(t)
	rnd := rand.New(rand.NewPCG(7, 11))
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	var all []job.ID
	for range 300 {
		token := job.NewToken()
		id := d.submit(func(s *store.Submit) {
			s.Job.Queue, s.Job.Key = pick("a", "b", "c"), pick("", "k", "l")
			s.Job.Metadata = map[string]string{"m": pick("1", "2")}
			switch rnd.IntN(3) {
			case 0:
				s.Delay = time.Hour
			case 1:
				s.Token, s.LeaseFor = token, time.Minute
			}
		})
		all = append(all, id)
		if to := []job.State{0, job.Succeeded, job.Failed, job.Scheduled, job.Queued}[rnd.IntN(5)]; to != 0 {
			d.apply(&store.Finish{Lease: job.Lease{Job: id, Token: token}, To: to, Failure: &job.Failure{Code: pick("x", "y")}})
		}
		old := all[rnd.IntN(len(all))]
		switch rnd.IntN(6) {
		case 0:
			d.apply(&store.Cancel{Owner: testOwner, ID: old})
		case 1:
			d.apply(&store.Retry{Owner: testOwner, ID: old})
		case 2:
			d.apply(&store.Delete{Owner: testOwner, ID: old})
		case 3:
			d.apply(newClaim(1))
		case 4: // a neighbour's job, with the same fields
			s := d.submit(func(s *store.Submit) {
				s.Job.Owner = []job.Owner{{Tenant: "t", User: testOwner.User}, {User: testOwner.User + "x"}, {}}[rnd.IntN(3)]
				s.Job.Queue, s.Job.Key, s.Token, s.LeaseFor = pick("a", "b", "c"), pick("", "k", "l"), token, time.Minute
			})
			d.apply(&store.Finish{Lease: job.Lease{Job: s, Token: token}, To: job.Failed, Failure: &job.Failure{Code: pick("x", "y")}})
		}
		d.now = d.now.Add(time.Second)
	}
	d.checkLists(all)
	d.reopenWith(nil)
	d.checkLists(all)
}

// checkLists compares all filters with the jobs, which are read one by one and filtered here.
func (d *harness) checkLists(ids []job.ID) {
	d.Helper()
	read := func(f job.Filter) (all []job.Job) {
		for f.Owner = testOwner; ; {
			page, next, err := d.List(d.Context(), f)
			if err != nil {
				d.Fatal(err)
			}
			if all = append(all, page...); next == (job.ID{}) {
				return all
			}
			f.After = next
		}
	}
	var every []job.Job // newest first
	for _, id := range slices.Backward(ids) {
		if j, err := d.Job(d.Context(), testOwner, id); err == nil {
			every = append(every, j)
		}
	}
	first, last := every[len(every)*2/3].CreatedAt, every[len(every)/3].CreatedAt
	none, k := "", "k"
	check := func(f job.Filter) {
		d.Helper()
		var want, got []job.ID
		for i := range every {
			j := &every[i]
			if matchesJob(j, &f) && (f.Queue == "" || j.Queue == f.Queue) && (f.Key == nil || j.Key == *f.Key) &&
				(f.Status == 0 || j.State == f.Status) && f.MatchCreatedAt(j.CreatedAt) {
				want = append(want, j.ID)
			}
		}
		for _, j := range read(f) {
			got = append(got, j.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			d.Fatalf("%+v: %d jobs are listed, want %d", f, len(got), len(want))
		}
	}
	for _, queue := range []string{"", "a", "c", "z"} {
		for _, key := range []*string{nil, &none, &k} {
			for _, state := range append(job.States(), 0) {
				for i, code := range []string{"", "x", "z"} {
					f := job.Filter{Queue: queue, Key: key, Status: state, ErrorCode: code, Limit: 1 + len(queue)*3}
					check(f)
					f.CreatedAfter, f.CreatedBefore = first, last
					check(f)
					f.Metadata = map[string]string{"m": fmt.Sprint(i)}
					check(f)
				}
			}
		}
	}
}

// Lists have readers of their own: while all of them are busy, a job can be read.
func TestListsLeaveReadersForJobs(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	id := d.submit()
	for range cap(d.listReaders.open) {
		defer d.listReaders.giveBack(takeReader(t, &d.listReaders))
	}
	if _, err := d.Job(d.Context(), testOwner, id); err != nil {
		t.Error(err)
	}
}

// BenchmarkList reads pages among a million jobs.
func BenchmarkList(b *testing.B) {
	a := newBulkStore(b, Options{Unsynced: true, Readers: 1})
	owner := job.Owner{User: "u"}
	a.addListed(1_000_000, owner, listedRow)
	filters := rareFilters(owner)
	filters["all"] = job.Filter{Owner: owner}
	filters["common queue"] = job.Filter{Owner: owner, Queue: "common"}
	filters["metadata of no job"] = job.Filter{Owner: owner, Metadata: map[string]string{"a": "b"}}
	for name, f := range filters {
		f.Limit = job.MaxListPage
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := a.List(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResultInPieces reads a large result as a slow client gets it.
func BenchmarkResultInPieces(b *testing.B) {
	a := newBulkStore(b, Options{Unsynced: true, Readers: 1})
	a.addEnded(1, 60<<20)
	page, _, err := a.List(b.Context(), job.Filter{Owner: job.Owner{User: "u"}, Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	for _, piece := range []int{64 << 10, 512 << 10} {
		b.Run(fmt.Sprint(piece>>10, " KiB"), func(b *testing.B) {
			for b.Loop() {
				for at := int64(0); at < 60<<20; at += int64(piece) {
					if _, err := a.Result(b.Context(), page[0].Owner, page[0].ID, at, piece); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
