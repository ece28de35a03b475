package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func listRules() []rule {
	return []rule{
		{"jobs are listed newest first, page by page", long(listPages)},
		{"a list has exactly the jobs that its filter selects", long(listFilters)},
		{"pages read during writes repeat no job and miss none that stayed", long(listUnderWrites)},
		{"pages of one state read during writes miss no job that stayed in it", long(listStateUnderWrites)},
		{"a listed job equals the job that a read returns", listedJobs},
		{"a list selects by the code of the last failure", listByCode},
		{"a list selects by the time of storing, not by the time in the id", listByTime},
		{"a list selects by the time of storing also when ids are much older", long(listByTimeOfLongUploads)},
		{"the shown time of a job as a bound excludes the job", listByShownTime},
		{"a list selects jobs that have all of the metadata", long(listByMetadata)},
		{"a page by queue, key, status or code is full however many other jobs there are", long(listAmongMany)},
		{"a list by metadata among many jobs comes in pages with a cursor", long(listByMetadataAmongMany)},
	}
}

func stateOf(o job.Owner, s job.State) job.Filter { return job.Filter{Owner: o, Status: s} }

// listPagewise reads a list page by page, and checks that it is sorted newest first. It calls
// between after each page.
func (w *harness) listPagewise(f job.Filter, between func()) (got []job.Job) {
	w.Helper()
	for pages := 0; ; pages++ {
		page, next, err := w.store.List(w.ctx, f)
		if err != nil || len(page) > f.Limit || pages > 10_000 {
			w.Fatalf("page %d of %d has %d jobs, %v", pages, f.Limit, len(page), err)
		}
		for _, j := range page {
			if n := len(got); n > 0 && string(j.ID[:]) >= string(got[n-1].ID[:]) {
				w.Fatalf("a job is listed after an older one")
			}
			got = append(got, j)
		}
		if next == (job.ID{}) {
			return got
		}
		w.wantOlder(f.After, next)
		f.After = next
		between()
	}
}

func listPages(w *harness) {
	want := w.submitMany(23)
	for _, limit := range []int{1, 2, 5, 22, 23, 24, job.MaxListPage} {
		got := w.listPagewise(job.Filter{Owner: mine, Limit: limit}, func() {})
		wantEqual(w, "the jobs listed", len(got), len(want))
		for i, j := range got {
			wantEqual(w, "the job", j.ID, want[len(want)-1-i])
		}
	}
	after := w.listPagewise(job.Filter{Owner: mine, Limit: 5, After: want[10]}, func() {})
	wantEqual(w, "the jobs older than the eleventh", len(after), 10)
	wantEqual(w, "the jobs of an unknown user", len(w.listAll(job.Filter{Owner: job.Owner{User: "nobody"}})), 0)
}

func listFilters(w *harness) {
	for i := range 60 {
		c := w.newSubmit(inQueue(fmt.Sprint("q", i%2)), withKey([]string{"", "a", "ab"}[i%3]), leasedAs(w.token()))
		if i%5 == 0 {
			c.Job.Owner = theirs
		}
		if i%4 == 0 {
			c.Token = job.Token{}
		}
		w.do(c)
		if i%4 == 1 {
			w.do(newFinish(job.Lease{Job: c.Job.ID, Token: c.Token}, []job.State{job.Failed, job.Succeeded}[i%7%2]))
		}
	}
	w.submit(ownedBy(elsewhere))
	whole := job.WholeTenant(mine.Tenant)
	all := map[job.Owner][]job.Job{}
	for _, owner := range []job.Owner{mine, theirs, whole} {
		all[owner] = w.listAll(job.Filter{Owner: owner})
	}
	wantEqual(w, "the jobs of both owners", len(all[mine])+len(all[theirs]), 60)
	wantEqual(w, "the jobs of their tenant", len(all[whole]), 60)
	keys := []*string{nil, ptr(""), ptr("a"), ptr("ab"), ptr("b")}
	for owner := range all {
		for _, q := range []string{"", "q0", "q1", "q"} {
			for _, key := range keys {
				for _, state := range append(job.States(), 0) {
					f := job.Filter{Owner: owner, Queue: q, Key: key, Status: state, Limit: 7}
					var want []job.Job
					for _, j := range all[owner] {
						if matches(f, j) {
							want = append(want, j)
						}
					}
					wantEqual(w, "the list", fmt.Sprint(ids(w.listPagewise(f, func() {}))), fmt.Sprint(ids(want)))
				}
			}
		}
	}
}

func matches(f job.Filter, j job.Job) bool {
	return (j.Owner == f.Owner || f.Owner == job.WholeTenant(j.Owner.Tenant)) && (f.Queue == "" || j.Queue == f.Queue) &&
		(f.Key == nil || *f.Key == j.Key) && (f.Status == 0 || f.Status == j.State)
}

func ptr[T any](v T) *T { return &v }

func (w *harness) listed(what string, f job.Filter, want ...job.ID) {
	w.Helper()
	f.Owner = mine
	want = slices.Clone(want)
	slices.Reverse(want) // newest first
	wantEqual(w, "the list "+what, fmt.Sprint(ids(w.listAll(f))), fmt.Sprint(want))
}

func listByCode(w *harness) {
	bad, again, other, well := w.running(), w.running(), w.running(), w.running()
	w.submit()
	w.do(newFinish(bad.Lease(), job.Failed), newFinish(again.Lease(), job.Scheduled), newFinish(well.Lease(), job.Succeeded))
	failed := newFinish(other.Lease(), job.Failed)
	failed.Failure = &job.Failure{Code: "bad_input_2", Message: "bad_input"}
	w.do(failed)
	w.listed("of failed jobs", job.Filter{ErrorCode: "bad_input"}, bad.Job.ID)
	w.listed("of jobs that wait to be tried again", job.Filter{ErrorCode: "upstream_error"}, again.Job.ID)
	w.listed("of both conditions", job.Filter{ErrorCode: "bad_input_2", Status: job.Failed}, other.Job.ID)
	w.listed("of conditions that no job meets", job.Filter{ErrorCode: "upstream_error", Status: job.Failed})
	w.listed("of a code that no job has", job.Filter{ErrorCode: "bad"})
	w.do(newRetry(bad.Job.ID))
	w.listed("of failed jobs", job.Filter{ErrorCode: "bad_input"})
}

func listByTime(w *harness) {
	var all []job.ID
	at := func(i int) time.Time { return w.job(all[i]).CreatedAt }
	early := w.id() // made long before its job is stored
	for i := range 6 {
		w.advance(7 * time.Minute)
		all = append(all, w.submit(inQueue([]string{"a", "b"}[i%2])))
	}
	w.do(w.newSubmit(func(s *store.Submit) { s.Job.ID = early }))
	last := at(5)
	w.listed("of jobs after", job.Filter{CreatedAfter: at(3)}, early, all[4], all[5])
	w.listed("of jobs before", job.Filter{CreatedBefore: at(2)}, all[0], all[1])
	w.listed("of jobs between", job.Filter{CreatedAfter: at(1), CreatedBefore: at(4)}, all[2], all[3])
	w.listed("of a queue's jobs between", job.Filter{CreatedAfter: at(0), CreatedBefore: at(4), Queue: "b"}, all[1], all[3])
	w.listed("of jobs before the last moment", job.Filter{CreatedBefore: last.Add(time.Microsecond), CreatedAfter: last.Add(-time.Microsecond)}, early, all[5])
	w.listed("of jobs of another day", job.Filter{CreatedAfter: last.Add(day)})
	w.listed("of jobs of another year", job.Filter{CreatedBefore: time.Unix(0, 0)})
	w.listed("of jobs of another century", job.Filter{CreatedBefore: time.Unix(-1<<33, 0)})
}

func listByTimeOfLongUploads(w *harness) {
	w.submit()
	early, earliest := w.id(), w.id()
	w.advance(26 * time.Hour)
	before := w.submit()
	w.advance(time.Hour)
	w.do(w.newSubmit(func(s *store.Submit) { s.Job.ID = early }))
	w.advance(time.Hour)
	after := w.submit()
	w.advance(300 * time.Hour)
	future := w.id()
	w.advance(-300 * time.Hour)
	check := func(more ...job.ID) {
		w.Helper()
		w.listed("of jobs after the other", job.Filter{CreatedAfter: w.job(before).CreatedAt}, append([]job.ID{early, after}, more...)...)
		w.listed("of jobs between", job.Filter{CreatedAfter: w.job(before).CreatedAt, CreatedBefore: w.job(after).CreatedAt}, early)
		w.listed("of failed jobs after the other", job.Filter{CreatedAfter: w.job(before).CreatedAt, Status: job.Failed})
	}
	check()
	w.reopen()
	check()

	// The jobs of a group, and a job whose id has a later time than its storing.
	w.advance(50 * time.Hour)
	w.do(w.newSubmit(func(s *store.Submit) { s.Job.ID, s.Group = earliest, &store.Group{Size: 1} }))
	w.listed("of jobs after all others", job.Filter{CreatedAfter: w.job(after).CreatedAt}, earliest)
	last := w.job(earliest).CreatedAt
	w.advance(time.Hour)
	w.do(w.newSubmit(func(s *store.Submit) { s.Job.ID = future }))
	w.listed("of jobs after the last", job.Filter{CreatedAfter: last, CreatedBefore: last.Add(2 * time.Hour)}, future)
}

func listByShownTime(w *harness) {
	var all []job.ID
	for range 3 {
		w.micros.Add(1_000_456 - w.micros.Load()%1000) // 0.456 ms past a millisecond
		all = append(all, w.submit())
	}
	shown := w.job(all[1]).CreatedAt.Truncate(time.Millisecond)
	w.listed("of jobs after the one", job.Filter{CreatedAfter: shown}, all[2])
	w.listed("of jobs before the one", job.Filter{CreatedBefore: shown}, all[0])
	w.listed("of jobs around the one", job.Filter{CreatedAfter: shown.Add(-time.Microsecond), CreatedBefore: shown.Add(time.Microsecond)}, all[1])
}

func listByMetadata(w *harness) {
	with := func(pairs ...string) job.ID {
		return w.submit(func(s *store.Submit) {
			s.Job.Metadata = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				s.Job.Metadata[pairs[i]] = pairs[i+1]
			}
		})
	}
	w.submit(withRef("put:p"))
	a, ab, b, empty := with("a", "1"), with("a", "1", "b", "2"), with("b", "2"), with("a", "")
	pairs := func(p ...string) job.Filter {
		f := job.Filter{Metadata: map[string]string{}}
		for i := 0; i < len(p); i += 2 {
			f.Metadata[p[i]] = p[i+1]
		}
		return f
	}
	w.listed("of a pair", pairs("a", "1"), a, ab)
	w.listed("of two pairs", pairs("a", "1", "b", "2"), ab)
	w.listed("of another pair", pairs("b", "2"), ab, b)
	w.listed("of an empty value", pairs("a", ""), empty)
	w.listed("of a name that no job has", pairs("c", ""))
	w.listed("of a value that no job has", pairs("a", "2"))
}

// listAmongMany asks for the oldest jobs behind more than a page may look at.
func listAmongMany(w *harness) {
	rare := w.running(inQueue("rare"), withKey("rare"))
	failed := newFinish(rare.Lease(), job.Failed)
	failed.Failure = &job.Failure{Code: "rare"}
	w.do(failed)
	again := w.running(inQueue("rare"), withKey("rare"))
	busy := w.running(inQueue("rare"))
	retried := newFinish(again.Lease(), job.Scheduled)
	retried.Failure = &job.Failure{Code: "rare"}
	w.do(retried)
	for range 15 {
		w.submitMany(100, inQueue("common"), withKey("common"))
	}
	key := "rare"
	for _, c := range []struct {
		what string
		f    job.Filter
		want []job.ID
	}{
		{"queue", job.Filter{Queue: "rare"}, []job.ID{busy.Job.ID, again.Job.ID, rare.Job.ID}},
		{"key", job.Filter{Key: &key}, []job.ID{again.Job.ID, rare.Job.ID}},
		{"code", job.Filter{ErrorCode: "rare"}, []job.ID{again.Job.ID, rare.Job.ID}},
		{"status", job.Filter{Status: job.Running}, []job.ID{busy.Job.ID}},
		{"queue and status", job.Filter{Queue: "rare", Status: job.Scheduled}, []job.ID{again.Job.ID}},
		{"queue and key", job.Filter{Queue: "common", Key: &key}, nil},
		{"key and status", job.Filter{Key: &key, Status: job.Failed}, []job.ID{rare.Job.ID}},
		{"code and status", job.Filter{ErrorCode: "rare", Status: job.Failed}, []job.ID{rare.Job.ID}},
		{"key and code", job.Filter{Key: &key, ErrorCode: "rare", Queue: "rare"}, []job.ID{again.Job.ID, rare.Job.ID}},
	} {
		c.f.Owner, c.f.Limit = mine, 10
		page, next, err := w.store.List(w.ctx, c.f)
		wantEqual(w, "the refusal of a list by "+c.what, err, nil)
		wantEqual(w, "the page by "+c.what, fmt.Sprint(ids(page)), fmt.Sprint(c.want))
		wantEqual(w, "the cursor behind it", next, job.ID{})
	}
}

func listByMetadataAmongMany(w *harness) {
	rare := w.submit(func(s *store.Submit) { s.Job.Metadata = map[string]string{"a": "rare"} })
	for range 25 {
		w.submitMany(100, func(s *store.Submit) { s.Job.Metadata = map[string]string{"a": "common"} })
	}
	got := w.listPagewise(job.Filter{Owner: mine, Metadata: map[string]string{"a": "rare"}, Limit: 10}, func() {})
	wantEqual(w, "the jobs", fmt.Sprint(ids(got)), fmt.Sprint([]job.ID{rare}))
}

// newListChurn makes jobs. The returned function adds new jobs and changes old ones, except
// every third.
func (w *harness) newListChurn() (stay map[job.ID]bool, stir func()) {
	stay = map[job.ID]bool{}
	var others []job.ID
	for i := range 90 {
		id := w.submit(delayed(time.Hour))
		if i%3 == 0 {
			stay[id] = true
		} else {
			others = append(others, id)
		}
	}
	n := 0
	return stay, func() {
		for range 3 {
			w.submit(delayed(time.Hour))
			if n < len(others) {
				id := others[(n*37)%len(others)]
				n++
				w.try([]any{newDelete(id), newCancel(id)}[n%2])
			}
		}
	}
}

func listUnderWrites(w *harness) {
	stay, stir := w.newListChurn()
	for _, j := range w.listPagewise(job.Filter{Owner: mine, Limit: 4}, stir) {
		delete(stay, j.ID)
	}
	wantEqual(w, "the jobs missed that were there all the time", len(stay), 0)
}

func listStateUnderWrites(w *harness) {
	stay, stir := w.newListChurn()
	for _, j := range w.listPagewise(job.Filter{Owner: mine, Limit: 4, Status: job.Scheduled}, stir) {
		wantEqual(w, "the listed state", j.State, job.Scheduled)
		delete(stay, j.ID)
	}
	wantEqual(w, "the jobs missed that were scheduled all the time", len(stay), 0)
}

func listedJobs(w *harness) {
	for _, state := range reachable() {
		id, lease := w.inState(state)
		if state == job.Running {
			output := newAppend(lease, 1, 0, "text")
			output.Progress = &job.Progress{Percent: 7, Status: "Running"}
			w.do(output, newCancel(id))
		}
	}
	for _, j := range w.listAll(job.Filter{Owner: mine}) {
		wantEqual(w, "the listed job", text(j), text(w.job(j.ID)))
		read, _, err := w.store.Output(w.ctx, mine, j.ID, 0, 1)
		wantEqual(w, "the refusal of output", err, nil)
		wantEqual(w, "the job read with its output", text(j), text(read))
	}
}
