package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func tenantRules() []rule {
	return []rule{
		{"the same key of two tenants is two keys", tenantsKeysApart},
		{"a tenant and a key are not another tenant and key with the same concatenation", tenantsNotConcatenated},
		{"a refusal reveals nothing about another tenant's jobs", tenantsRefusal},
		{"a group counts for the keys of each tenant apart", tenantsGroup},
		{"a tenant with a thousand keys gets no more than a tenant with one", long(tenantsTurns)},
		{"the only job of a tenant is among the next", tenantsSingle},
		{"the keys of a tenant take turns while another tenant has jobs", tenantsOwnTurns},
		{"priority orders a tenant's own jobs, and takes no turn from another tenant", tenantsPriority},
		{"a tenant's job is claimed even while new tenants keep arriving", long(tenantsNoStarving)},
		{"a claim of one tenant gets its jobs only", tenantsFilter},
		{"a position counts the jobs of other tenants that are claimed before", long(tenantsPosition)},
		{"keys and turns of tenants survive a reopening", long(tenantsReopened)},
	}
}

// ofTenant is an owner of the tenant.
func ofTenant(tenant string) job.Owner { return job.Owner{Tenant: tenant, User: "user"} }

func tenantsKeysApart(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1, KeyWaiting: 2})
	for _, tenant := range []string{"", "a", "b"} {
		o := ownedBy(ofTenant(tenant))
		first, parked := w.newSubmit(o), w.newSubmit(o)
		w.do(first, parked)
		wantEqual(w, "the first one's state", first.Job.State, job.Queued)
		wantEqual(w, "the second one's state", parked.Job.State, job.Parked)
		w.mustRefuse(job.KeyFull, w.newSubmit(o))
	}
	claimed := w.claim(queue, 9)
	wantEqual(w, "the jobs claimed, one of each tenant", len(claimed), 3)
	for _, c := range claimed {
		w.do(newFinish(c.Lease(), job.Succeeded))
		next := w.claimOne(queue) // the job that was unparked
		wantEqual(w, "the tenant of the job that followed", next.Job.Owner, c.Job.Owner)
	}
}

func tenantsNotConcatenated(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 1})
	type pair struct{ tenant, key string }
	pairs := []pair{{"", "abc"}, {"a", "bc"}, {"ab", "c"}, {"1:a", "bc"}, {"1", ":abc"}, {"=", "a"}, {"", "=a"}, {"+", "a"}, {"", "+a"}, {"-1:", "a"}, {"", "-1:a"}, {"a\x00", "b"}, {"a", "\x00b"}}
	var parked []job.ID
	pairs = slices.DeleteFunc(pairs, func(p pair) bool {
		first, second := w.newSubmit(ownedBy(ofTenant(p.tenant)), withKey(p.key)), w.newSubmit(ownedBy(ofTenant(p.tenant)), withKey(p.key))
		if !w.accepts(first, p.tenant, p.key) {
			return true
		}
		w.do(second)
		parked = append(parked, second.Job.ID)
		return false
	})
	for range 2 {
		claimed := w.claim(queue, 50)
		wantEqual(w, "the jobs claimed, one of each key", len(claimed), len(pairs))
		for _, c := range claimed {
			w.do(newFinish(c.Lease(), job.Succeeded))
		}
		w.reopen()
	}
	for i, id := range parked {
		wantEqual(w, "the state of the second of each key", w.jobOf(ofTenant(pairs[i].tenant), id).State, job.Succeeded)
	}
}

func tenantsRefusal(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 4})
	w.submitMany(3, ownedBy(ofTenant("a")))
	w.submitMany(4, ownedBy(ofTenant("b")))
	s := w.newSubmit(ownedBy(ofTenant("b")))
	w.mustRefuse(job.KeyFull, s)
	if !strings.Contains(s.Err.Error(), "4 jobs waiting") {
		w.Errorf("a tenant with 4 waiting jobs is refused with: %v", s.Err)
	}
	w.submit(ownedBy(ofTenant("a")))
}

func tenantsGroup(w *harness) {
	w.setLimits(queue, job.Limits{KeyWaiting: 2})
	both := append(w.newSubmits(2, ownedBy(ofTenant("a"))), w.newSubmits(2, ownedBy(ofTenant("b")))...)
	w.do(grouped(both...)...)
	wantEqual(w, "the jobs", w.counts(queue).Queued, 4)
}

// claimedByTenant claims jobs one by one and counts them by tenant.
func (w *harness) claimedByTenant(n int) map[string]int {
	w.Helper()
	got := map[string]int{}
	for range n {
		got[w.claimOne(queue).Job.Owner.Tenant]++
	}
	return got
}

func tenantsTurns(w *harness) {
	for i := range 1000 {
		w.submit(ownedBy(ofTenant("many")), withKey(fmt.Sprint(i)))
	}
	w.submitMany(60, ownedBy(ofTenant("one")))
	got := w.claimedByTenant(40)
	if n := got["one"]; n < 19 {
		w.Errorf("of 40 jobs a tenant with one key got %d, one with a thousand keys the others", n)
	}
	claimed := w.claim(queue, 40) // also in one claim
	n := len(slices.DeleteFunc(claimed, func(c job.Claimed) bool { return c.Job.Owner.Tenant != "one" }))
	if n < 19 || n > 21 {
		w.Errorf("of 40 jobs claimed at once a tenant with one key got %d", n)
	}
}

func tenantsSingle(w *harness) {
	w.submitMany(100, ownedBy(ofTenant("busy")))
	w.claimedByTenant(10)
	single := w.submit(ownedBy(ofTenant("single")))
	if !slices.Contains(claimedIDs(w.claim(queue, 2)), single) {
		w.Errorf("the only job of its tenant was not among the next two of 91")
	}
	late := w.submit(ownedBy(ofTenant("")))
	if !slices.Contains(claimedIDs(w.claim(queue, 2)), late) {
		w.Errorf("a job of the tenant without a name was not among the next two")
	}
}

func tenantsOwnTurns(w *harness) {
	w.submitMany(50, ownedBy(ofTenant("a")), withKey("busy"))
	w.submitMany(50, ownedBy(ofTenant("b")), withKey("busy"))
	w.claimedByTenant(4)
	single := w.submit(ownedBy(ofTenant("a")), withKey("single"))
	if !slices.Contains(claimedIDs(w.claim(queue, 4)), single) {
		w.Errorf("the only job of its key was not among its tenant's next two")
	}
}

func tenantsPriority(w *harness) {
	late := w.submit(ownedBy(ofTenant("a")), withPriority(9))
	w.submitMany(20, ownedBy(ofTenant("a")), withPriority(1))
	w.submitMany(20, ownedBy(ofTenant("b")), withPriority(5))
	got := map[string]int{}
	for range 20 {
		c := w.claimOne(queue)
		got[c.Job.Owner.Tenant]++
		if c.Job.ID == late {
			w.Errorf("a job of the lowest priority was claimed before its tenant's urgent ones")
		}
	}
	wantEqual(w, "the turns of the tenant with ordinary jobs", got["b"], 10)
}

func tenantsNoStarving(w *harness) {
	second := w.submitMany(2, ownedBy(ofTenant("two")))[1]
	more := func(n int) (ops []any) {
		for range n {
			s := w.newSubmit()
			s.Job.Owner.Tenant = s.Job.ID.String()
			ops = append(ops, s)
		}
		return ops
	}
	if w.overtake(second, 20, 200, more) < 0 {
		w.Errorf("with twenty tenants waiting the second job of one was overtaken by more than two hundred")
	}
}

func tenantsFilter(w *harness) {
	for _, tenant := range []string{"", "a", "b"} {
		w.submitMany(3, ownedBy(ofTenant(tenant)))
	}
	for _, tenant := range []string{"b", "", "none", "a"} {
		c := w.newClaim(queue, 2)
		c.Tenant = &tenant
		w.do(c)
		want := 2
		if tenant == "none" {
			want = 0
		}
		wantEqual(w, "the jobs claimed of the tenant "+tenant, len(c.Claimed), want)
		for _, got := range c.Claimed {
			wantEqual(w, "the tenant of a claimed job", got.Job.Owner.Tenant, tenant)
		}
	}
	w.setLimits(queue, job.Limits{Running: 7})
	one, rest := w.newClaim(queue, 5), w.newClaim(queue, 5)
	a := "a"
	one.Tenant = &a
	w.do(one, rest)
	wantEqual(w, "the tenant's last job", len(one.Claimed), 1)
	wantEqual(w, "what the limit leaves of the others", len(rest.Claimed), 0)
	w.limits = nil
	wantEqual(w, "the jobs claimed without a tenant", len(w.claim(queue, 9)), 2)
}

func tenantsPosition(w *harness) {
	type waits struct {
		o  job.Owner
		id job.ID
	}
	var all []waits
	for i := range 60 {
		o := ofTenant([]string{"a", "b", "b", "c", "", "b"}[i%6])
		all = append(all, waits{o, w.submit(ownedBy(o), withKey(fmt.Sprint(i%4)), withPriority(4+i%3))})
		if i%7 == 6 {
			w.claimOne(queue)
		}
	}
	positions := map[job.ID]int{}
	for _, j := range all {
		n, err := w.store.Position(w.ctx, j.o, j.id, 1000)
		if err != nil {
			w.Fatalf("position: %v", err)
		}
		positions[j.id] = n
	}
	for want, c := range w.claim(queue, 60) {
		wantEqual(w, "the position of the job claimed next", positions[c.Job.ID], want)
	}
}

func tenantsReopened(w *harness) {
	w.setLimits(queue, job.Limits{KeyRunning: 20, KeyWaiting: 30})
	for _, tenant := range []string{"", "a", "b"} {
		w.submitMany(25, ownedBy(ofTenant(tenant)))
		w.submitMany(5, ownedBy(ofTenant(tenant)), delayed(time.Hour))
	}
	w.reopen()
	for _, tenant := range []string{"", "a", "b"} {
		w.mustRefuse(job.KeyFull, w.newSubmit(ownedBy(ofTenant(tenant))))
	}
	got := w.claimedByTenant(12)
	for _, tenant := range []string{"", "a", "b"} {
		wantEqual(w, "the turns of the tenant "+tenant, got[tenant], 4)
	}
}
