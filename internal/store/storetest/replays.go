package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// replayOfRunning makes a replay of one op on a running job.
func replayOfRunning(op func(w *harness, c *job.Claimed) any) func(w *harness) []any {
	return func(w *harness) []any { return []any{op(w, w.running(withRef("put:p")))} }
}

func replaysOfWorkers() []replay {
	all := []replay{
		{"renew", replayOfRunning(func(_ *harness, c *job.Claimed) any { return newRenew(c.Lease(), leaseFor) })},
		{"append", replayOfRunning(func(_ *harness, c *job.Claimed) any { return newAppend(c.Lease(), 1, 0, "a", "b") })},
		{"append with progress", replayOfRunning(func(_ *harness, c *job.Claimed) any {
			a := newAppend(c.Lease(), 1, 0, "a")
			a.Progress = &job.Progress{Percent: 5}
			return a
		})},
		{"renew and append of a job with a cancel request", func(w *harness) []any {
			c := w.running()
			w.do(newCancel(c.Job.ID))
			return []any{newRenew(c.Lease(), leaseFor), newAppend(c.Lease(), 1, 0, "a")}
		}},
		{"finish by a sweep", replayOfRunning(func(w *harness, c *job.Claimed) any {
			w.advance(leaseFor + time.Second)
			return newLapse(c.Lease(), job.Queued)
		})},
		{"finish by a sweep before its time", replayOfRunning(func(_ *harness, c *job.Claimed) any { return newLapse(c.Lease(), job.Queued) })},
		{"finish with a lost lease", replayOfRunning(func(w *harness, c *job.Claimed) any {
			w.do(newFinish(c.Lease(), job.Queued))
			return newFinish(c.Lease(), job.Succeeded)
		})},
	}
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		all = append(all, replaysOfFinish(to)...)
	}
	return all
}

func replaysOfFinish(to job.State) []replay {
	finish := func(prepare func(w *harness, f *store.Finish)) func(w *harness) []any {
		return replayOfRunning(func(w *harness, c *job.Claimed) any {
			f := newFinish(c.Lease(), to)
			prepare(w, f)
			return f
		})
	}
	name := "finish as " + to.String()
	return []replay{
		{name, finish(func(*harness, *store.Finish) {})},
		{name + " with output, progress and usage", finish(func(w *harness, f *store.Finish) {
			w.do(newAppend(f.Lease, 1, 0, "a"))
			f.Entries, f.Progress, f.Usage = textEntries(1, 1, "b", "c"), &job.Progress{Percent: 100}, []byte("{}")
		})},
		{name + " without counting the attempt", finish(func(_ *harness, f *store.Finish) { f.Refund = !to.Ended() })},
		{name + " of a job that is to be cancelled", finish(func(w *harness, f *store.Finish) { w.do(newCancel(f.Lease.Job)) })},
		{name + " of a job that was deleted", finish(func(w *harness, f *store.Finish) { w.do(newDelete(f.Lease.Job)) })},
		{name + " of a second attempt", finish(func(w *harness, f *store.Finish) {
			w.do(newFinish(f.Lease, job.Queued))
			f.Lease = w.claimOne(queue).Lease()
		})},
	}
}

func replaysOfOwners() []replay {
	all := []replay{
		{"cancel of a queued job", func(w *harness) []any { return []any{newCancel(w.submit(withRef("put:p")))} }},
		{"cancel twice in one batch", func(w *harness) []any {
			id, c := w.submit(), w.submit(delayed(time.Hour))
			return []any{newCancel(id), newCancel(id), newCancel(c), newCancel(c)}
		}},
		{"cancel of an unknown job", func(w *harness) []any { return []any{newCancel(w.id())} }},
		{"delete of an unknown job", func(w *harness) []any { return []any{newDelete(w.id())} }},
		{"delete of a job with output and a key", func(w *harness) []any {
			c := w.running(withIdempotency("k", "a"), withRef("put:p"))
			w.do(newAppend(c.Lease(), 1, 0, "a"), newFinish(c.Lease(), job.Succeeded))
			return []any{newDelete(c.Job.ID)}
		}},
		{"delete twice in one batch", func(w *harness) []any {
			id := w.submit(withRef("put:p"))
			return []any{newDelete(id), newDelete(id)}
		}},
		{"retry twice in one batch", func(w *harness) []any {
			id, _ := w.inState(job.Failed)
			return []any{newRetry(id), newRetry(id)}
		}},
		{"retry of a job with output", func(w *harness) []any {
			c := w.running()
			w.do(newAppend(c.Lease(), 1, 0, "a"), newFinish(c.Lease(), job.Failed))
			return []any{newRetry(c.Job.ID)}
		}},
	}
	all = append(all, replaysInStates()...)
	return append(append(all, replaysOfWrites()...), replaysOfSubmits()...)
}

// replaysInStates makes replays of the ops of owners, for each state of a job.
func replaysInStates() (all []replay) {
	for _, state := range reachable() {
		in := func(op func(w *harness, id job.ID) any) func(w *harness) []any {
			return func(w *harness) []any {
				id, _ := w.inState(state)
				return []any{op(w, id)}
			}
		}
		all = append(all,
			replay{"cancel when " + state.String(), in(func(_ *harness, id job.ID) any { return newCancel(id) })},
			replay{"delete when " + state.String(), in(func(_ *harness, id job.ID) any { return newDelete(id) })},
			replay{"retry when " + state.String(), in(func(w *harness, id job.ID) any { return newRetry(id) })},
		)
	}
	return all
}

func replaysOfWrites() []replay {
	withExistingRow := func(rows ...store.Row) func(w *harness) []any {
		return func(w *harness) []any {
			w.do(newWrite(put("p", "there", "old"), put("p", "also", "")))
			return []any{newWrite(rows...)}
		}
	}
	return []replay{
		{"write put", withExistingRow(put("p", "there", "new"), put("p", "new", ""))},
		{"write insert", withExistingRow(withAction(store.Insert, put("p", "new", "x")))},
		{"write insert that conflicts with a row", withExistingRow(put("p", "new", ""), withAction(store.Insert, put("p", "there", "x")))},
		{"write insert that conflicts with an equal row", withExistingRow(withAction(store.Insert, put("p", "there", "old")))},
		{"write update", withExistingRow(withAction(store.Update, put("p", "there", "new")), withAction(store.Update, put("p", "absent", "")))},
		{"write remove", withExistingRow(withAction(store.Remove, put("p", "there", "")), withAction(store.Require, put("p", "there", "")))},
		{"write move", withExistingRow(moveRow(put("p", "there", ""), "moved"), put("p", "there", "new"))},
		{"write remove all", withExistingRow(withAction(store.RemoveAll, put("p", "", "")))},
		{"write require none", withExistingRow(put("q", "new", ""), withAction(store.RequireNone, put("absent", "", "")))},
		{"write require none that conflicts with a row", withExistingRow(put("p", "new", ""), withAction(store.RequireNone, put("p", "", "")))},
		{"write that requires a missing row", withExistingRow(put("p", "new", ""), withAction(store.Require, put("p", "absent", "")))},
		{"write insert twice in one batch", func(w *harness) []any {
			return []any{newWrite(withAction(store.Insert, put("p", "a", "1"))), newWrite(withAction(store.Insert, put("p", "a", "1")))}
		}},
		{"write that removes what it inserted", func(w *harness) []any {
			return []any{newWrite(withAction(store.Insert, put("p", "a", "1"))), newWrite(withAction(store.Remove, put("p", "a", "")), put("p", "b", ""))}
		}},
	}
}

func replaysOfSubmits() []replay {
	submits := func(edits ...func(*store.Submit)) func(w *harness) []any {
		return func(w *harness) []any { return []any{w.newSubmit(edits...), w.newSubmit()} }
	}
	leased := func(s *store.Submit) { leasedAs(job.Token{1, 2, 3})(s) }
	return []replay{
		{"submit", submits(withInput("in"))},
		{"submit with a delay", submits(delayed(time.Minute))},
		{"submit with a queue time", submits(withQueueTimeout(time.Minute))},
		{"submit already leased", submits(leased, withRef("put:p"))},
		{"submit with an idempotency key", submits(withIdempotency("k", "a"))},
		{"submit already leased with an idempotency key", submits(leased, withIdempotency("k", "a"))},
		{"submit with rows", submits(withRows(put("p", "a", ""), withAction(store.Insert, put("p", "b", "x"))))},
		{"submit with a key and rows", submits(withIdempotency("k", "a"), withRows(withAction(store.Insert, put("p", "b", "x"))))},
		{"submit with a key that is known", func(w *harness) []any {
			w.submit(withIdempotency("k", "a"))
			return []any{w.newSubmit(withIdempotency("k", "a"), leased), w.newSubmit(withIdempotency("k", "b"))}
		}},
		{"submit with one key several times in one batch", func(w *harness) []any {
			return []any{w.newSubmit(withIdempotency("k", "a")), w.newSubmit(withIdempotency("k", "a")), w.newSubmit(withIdempotency("k", "b"))}
		}},
		{"submit that conflicts with a row", func(w *harness) []any {
			insert := withRows(withAction(store.Insert, put("p", "a", "x")))
			return []any{w.newSubmit(insert), w.newSubmit(insert, withIdempotency("k", "a")), w.newSubmit(insert, leased)}
		}},
	}
}

func replaysOfUpkeep() []replay {
	return []replay{
		{"due", func(w *harness) []any {
			w.submitMany(3, delayed(time.Second))
			w.submitMany(3, withQueueTimeout(time.Second), withRef("put:p"))
			w.advance(2 * time.Second)
			return []any{newDue()}
		}},
		{"prune", func(w *harness) []any {
			for i := range 6 {
				w.do(newFinish(w.running(withIdempotency(fmt.Sprint("k", i), "a"), withRef("put:p")).Lease(), job.Succeeded))
			}
			w.advance(2 * day)
			return []any{newPrune()}
		}},
		{"claim", func(w *harness) []any {
			w.submitMany(5, withInput("in"))
			return []any{w.newClaim(queue, 2)}
		}},
		{"claim of more jobs than are ready", func(w *harness) []any {
			w.submitMany(2)
			return []any{w.newClaim(queue, 5), w.newClaim("empty", 3), w.newClaim(queue, 0)}
		}},
		{"two claims of one queue", func(w *harness) []any {
			w.submitMany(9)
			return []any{w.newClaim(queue, 2), w.newClaim(queue, 3), w.newClaim(queue, 1)}
		}},
		{"claim of a later attempt", func(w *harness) []any {
			c := w.running()
			w.do(newAppend(c.Lease(), 1, 0, "a"), newFinish(c.Lease(), job.Queued))
			return []any{w.newClaim(queue, 1)}
		}},
	}
}

func replaysOfReleases() []replay {
	released := func(edit func(w *harness, f *store.Finish)) func(w *harness) []any {
		return func(w *harness) []any {
			w.submitMany(2, inQueue("other"))
			c := w.running(withRef("put:p"))
			f := newFinish(c.Lease(), job.Queued)
			edit(w, f)
			return []any{newAppend(c.Lease(), 1, 0, "a"), f, w.newClaim(queue, 2), w.newClaim("other", 1)}
		}
	}
	return []replay{
		{"release and claim of one job", released(func(*harness, *store.Finish) {})},
		{"release without counting and claim of one job", released(func(_ *harness, f *store.Finish) { f.Refund = true })},
		{"release with output and claim of one job", released(func(_ *harness, f *store.Finish) { f.Entries = textEntries(1, 1, "b") })},
		{"sweep and claim of one job", released(func(w *harness, f *store.Finish) {
			w.advance(leaseFor + time.Second)
			f.OnlyIf = store.LapsedOnly
		})},
	}
}

func replaysOfLimits() []replay {
	limited := func(l job.Limits, ops func(w *harness) []any) func(w *harness) []any {
		return func(w *harness) []any {
			w.setLimits(queue, l)
			return ops(w)
		}
	}
	one := job.Limits{KeyRunning: 1}
	return []replay{
		{"pause and resume", func(w *harness) []any {
			w.submit()
			w.do(newPause("other", true))
			return []any{newPause(queue, true), newPause("other", false), newPause("new", true), w.newClaim(queue, 1), w.newSubmit(leasedAs(w.token()))}
		}},
		{"finish that unparks a job, and its claim", limited(one, func(w *harness) []any {
			c := w.running()
			w.submitMany(3, withInputBytes(5))
			return []any{newFinish(c.Lease(), job.Succeeded), w.newClaim(queue, 3)}
		})},
		{"cancel and delete that unpark jobs", limited(one, func(w *harness) []any {
			all := w.submitMany(5, withInputBytes(5))
			return []any{newCancel(all[0]), newDelete(all[1]), newCancel(all[4])}
		})},
		{"release, retry and submit of a full key", limited(one, func(w *harness) []any {
			c, failed := w.running(), w.newSubmit(leasedAs(w.token()), withKey("other"))
			w.do(failed)
			w.do(newFinish(job.Lease{Job: failed.Job.ID, Token: failed.Token}, job.Failed))
			return []any{newFinish(c.Lease(), job.Queued), newRetry(failed.Job.ID), w.newSubmit(), w.newSubmit(leasedAs(w.token()))}
		})},
		{"due that queues, parks and expires", limited(one, func(w *harness) []any {
			w.submit(withQueueTimeout(time.Second))
			w.submitMany(2, delayed(time.Second))
			w.submit()
			w.advance(2 * time.Second)
			return []any{newDue()}
		})},
		{"due after a limit was raised", limited(one, func(w *harness) []any {
			w.submitMany(5)
			w.setLimits(queue, job.Limits{KeyRunning: 3})
			return []any{newDue(), w.newClaim(queue, 2)}
		})},
		{"claim after a limit was lowered", func(w *harness) []any {
			w.submitMany(5)
			w.setLimits(queue, one)
			return []any{w.newClaim(queue, 4)}
		}},
		{"claims of a queue at its limit", limited(job.Limits{Running: 2}, func(w *harness) []any {
			w.running()
			w.submitMany(5)
			return []any{w.newSubmit(leasedAs(w.token())), w.newClaim(queue, 4), w.newClaim(queue, 4)}
		})},
		{"submits of a key that is full", limited(job.Limits{KeyWaiting: 2}, func(w *harness) []any {
			w.submit(withIdempotency("k", "a"))
			return []any{w.newSubmit(), w.newSubmit(), w.newSubmit(withIdempotency("k", "a"))}
		})},
		{"groups, one of which is refused", limited(job.Limits{KeyWaiting: 3}, func(w *harness) []any {
			w.submit(withIdempotency("k", "a"))
			ops := grouped(w.newSubmit(), w.newSubmit(withIdempotency("k", "a")), w.newSubmit(withIdempotency("l", "a"), withFiles("a")))
			return append(ops, grouped(w.newSubmit(withKey("free")), w.newSubmit())...)
		})},
		{"removals of jobs with files", func(w *harness) []any {
			queued, old, c := w.submit(withFiles("a")), w.running(withFiles("a"), inQueue("old")), w.running(withFiles("a"), inQueue("deleted"))
			w.do(newFinish(old.Lease(), job.Succeeded), newDelete(c.Job.ID))
			w.advance(2 * keep)
			return []any{newDelete(queued), newFinish(c.Lease(), job.Failed), newPrune()}
		}},
	}
}

func replaysOfMixes() []replay {
	return []replay{
		{"release, cancel and retry of one job, and its claim", func(w *harness) []any {
			c := w.running(withRef("put:p"))
			return []any{newFinish(c.Lease(), job.Queued), newCancel(c.Job.ID), newRetry(c.Job.ID), w.newClaim(queue, 1)}
		}},
		{"release and cancel of one job", func(w *harness) []any {
			c := w.running(withRef("put:p"))
			return []any{newFinish(c.Lease(), job.Scheduled), newCancel(c.Job.ID)}
		}},
		{"release and delete of one job", func(w *harness) []any {
			c := w.running(withRef("put:p"))
			return []any{newFinish(c.Lease(), job.Queued), newDelete(c.Job.ID)}
		}},
		{"failure and retry of one job, and its claim", func(w *harness) []any {
			c := w.running(withRef("put:p"))
			return []any{newFinish(c.Lease(), job.Failed), newRetry(c.Job.ID), w.newClaim(queue, 1)}
		}},
		{"success and delete of one job", func(w *harness) []any {
			c := w.running(withRef("put:p"), withIdempotency("k", "a"))
			return []any{newAppend(c.Lease(), 1, 0, "a"), newFinish(c.Lease(), job.Succeeded), newDelete(c.Job.ID)}
		}},
		{"cancel and retry of one job, and its claim", func(w *harness) []any {
			id := w.submit(withRef("put:p"))
			return []any{newCancel(id), newRetry(id), w.newClaim(queue, 1)}
		}},
		{"cancel and delete of one job", func(w *harness) []any {
			id := w.submit(withRef("put:p"))
			return []any{newCancel(id), newDelete(id)}
		}},
		{"submit and claim of one job", func(w *harness) []any {
			return []any{w.newSubmit(withIdempotency("k", "a"), withRows(withAction(store.Insert, put("p", "a", "")))), w.newClaim(queue, 2)}
		}},
		{"due and claim of one job", func(w *harness) []any {
			w.submit(delayed(time.Second))
			w.advance(2 * time.Second)
			return []any{newDue(), w.newClaim(queue, 1)}
		}},
		{"an op of every kind, with refused ones between", everyKind},
	}
}

func everyKind(w *harness) []any {
	failed, _ := w.inState(job.Failed)
	ended, _ := w.inState(job.Succeeded)
	old, _ := w.inState(job.Cancelled)
	w.submitMany(2, delayed(time.Second))
	w.submitMany(4)
	running := w.claim(queue, 3)
	lost := job.Lease{Job: running[0].Job.ID, Token: w.token()}
	w.do(newWrite(put("p", "there", "x")))
	w.advance(2 * time.Second)
	return []any{
		newPause("other", true), newRenew(running[0].Lease(), leaseFor), newRenew(lost, leaseFor),
		newAppend(running[1].Lease(), 1, 0, "a"), newAppend(running[1].Lease(), 1, 5, "gap"),
		newFinish(running[1].Lease(), job.Succeeded), newFinish(running[2].Lease(), job.Queued), newFinish(lost, job.Failed),
		newCancel(running[0].Job.ID), newCancel(w.id()),
		newDelete(ended), newDelete(w.id()), newRetry(failed), newRetry(w.id()),
		newWrite(put("p", "new", "")), newWrite(withAction(store.Insert, put("p", "there", ""))),
		w.newSubmit(withIdempotency("k", "a")), w.newSubmit(withIdempotency("k", "a")), w.newSubmit(leasedAs(w.token())),
		w.newSubmit(withRows(withAction(store.Require, put("p", "absent", "")))), grouped(w.newSubmit(withFiles("a")))[0],
		newDue(), &store.Prune{Limit: 100},
		w.newClaim(queue, 3), w.newClaim(job.Failed.String(), 1), &store.Cancel{Owner: theirs, ID: old},
	}
}
