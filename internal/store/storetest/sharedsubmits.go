package storetest

import (
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func sharedSubmitRules() []rule {
	return []rule{
		{"of submits with one idempotency key one makes the job, and all answer with it", sharedIdempotencyKey},
		{"of submits with one idempotency key and two hashes one makes the job, and the other is refused", sharedKeyDiffers},
		{"a submit with a known key concurrent with the delete of its job answers the job or is refused", sharedKeyDelete},
		{"of two inserts of one row one applies, and the other conflicts with its body", sharedInsert},
		{"of two submits that require no other row one applies", sharedRequireNone},
		{"a submit that requires a row applies or is refused, and so do all its rows", sharedRequire},
		{"of two groups that exclude each other at most one applies, and it applies whole", sharedGroups},
		{"a put at one store and a put at another leave one of their bodies", sharedPut},
	}
}

func sharedIdempotencyKey(w *harness) {
	for round := range rounds {
		for kind, edit := range []func(*store.Submit){delayed(0), delayed(time.Hour), leasedAs(w.token())} {
			w.oneKey(fmt.Sprintf("key %d.%d", round, kind), round, edit)
		}
	}
	n := int64(rounds)
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: n, Scheduled: n, Running: n})
}

func (w *harness) oneKey(key string, round int, edit func(*store.Submit)) {
	w.Helper()
	a, b := w.newSubmit(edit, withIdempotency(key, "h")), w.newSubmit(edit, withIdempotency(key, "h"))
	if !a.Token.IsZero() {
		a.Token, b.Token = w.token(), w.token()
	}
	w.race(round, a, b)
	made, other := a, b
	if a.Existing != nil {
		made, other = b, a
	}
	if made.Err != nil || made.Existing != nil || other.Err != nil || other.Existing == nil {
		w.Fatalf("of two submits with one key one answers %v, %v, the other %v, %v", made.Existing, made.Err, other.Existing, other.Err)
	}
	wantEqual(w, "the job that exists", text(*other.Existing), text(made.Job))
	w.eachStore(func() {
		id, _, err := w.store.Idempotent(w.ctx, mine, key)
		wantEqual(w, fmt.Sprintf("the job of the key (%v)", err), id, made.Job.ID)
		w.wantGone(mine, other.Job.ID)
	})
}

func sharedKeyDiffers(w *harness) {
	for round := range rounds {
		key := fmt.Sprint(round)
		a, b := w.newSubmit(withIdempotency(key, "a")), w.newSubmit(withIdempotency(key, "b"))
		w.race(round, a, b)
		won := wantOneApplied(w, job.IdempotencyMismatch, a, b)
		id, hash, err := w.store.Idempotent(w.ctx, mine, key)
		if err != nil || id != won.Job.ID || hash != won.Idempotency.Hash {
			w.Errorf("the key is of %s, %v, and the submit that applied made %s", id, err, won.Job.ID)
		}
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: rounds})
}

func sharedKeyDelete(w *harness) {
	for round := range rounds {
		key := fmt.Sprint(round)
		id := w.submit(withIdempotency(key, "h"))
		s, del := w.newSubmit(withIdempotency(key, "h")), newDelete(id)
		w.race(round, s, del)
		wantEqual(w, "the answer to the delete", del.Err, nil)
		if first := opsOrder(round); first >= 0 {
			wantEqual(w, "whether the submit was refused, the delete having come first", s.Err != nil, first == 1)
		}
		if s.Err == nil {
			wantEqual(w, "the job that the submit answers", s.Existing.ID, id)
		} else {
			w.wantCode(job.NotFound, s.Err)
		}
		w.wantGone(mine, id)
		w.wantGone(mine, s.Job.ID)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Cancelled: rounds})
}

func sharedInsert(w *harness) {
	for round := range rounds {
		p := fmt.Sprint(round)
		a := newWrite(withAction(store.Insert, put(p, "id", "a")), put(p, "of a", ""))
		b := newWrite(withAction(store.Insert, put(p, "id", "b")), put(p, "of b", ""))
		w.race(round, a, b)
		won, lost := wantOneApplied(w, job.Conflict, a, b), a
		if won == a {
			lost = b
		}
		body := string(won.Rows[0].Body)
		wantEqual(w, "the conflict of the other", string(lost.Conflict), body)
		rows := w.rows("note", p)
		wantEqual(w, "the rows", len(rows), 2)
		wantEqual(w, "the row's body", string(rows[0].Body), body)
		wantEqual(w, "the other row", rows[1].ID, "of "+body)
	}
}

func sharedRequireNone(w *harness) {
	for round := range rounds {
		p := fmt.Sprint(round)
		ask := func(id string) *store.Submit {
			return w.newSubmit(withRows(withAction(store.RequireNone, put(p, "", "")), put(p, id, "body of "+id)))
		}
		a, b := ask("a"), ask("b")
		w.race(round, a, b)
		won, lost := wantOneApplied(w, job.Conflict, a, b), a
		if won == a {
			lost = b
		}
		wantEqual(w, "the row that the other conflicts with", string(lost.Conflict), string(won.Rows[1].Body))
		wantEqual(w, "the rows", len(w.rows("note", p)), 1)
		w.job(won.Job.ID)
		w.wantGone(mine, lost.Job.ID)
	}
}

func sharedRequire(w *harness) {
	for round := range rounds {
		p, q := fmt.Sprint("p", round), fmt.Sprint("q", round)
		w.do(newWrite(put(p, "there", "")))
		s := w.newSubmit(withRows(withAction(store.Require, put(p, "there", "")), put(q, "new", "")))
		remove := newWrite(withAction(store.RemoveAll, put(p, "", "")))
		w.race(round, s, remove)
		wantEqual(w, "the answer to the removal", remove.Err, nil)
		wantEqual(w, "the rows that were removed", len(w.rows("note", p)), 0)
		if s.Err == nil {
			w.job(s.Job.ID)
			wantEqual(w, "the rows of the submit", len(w.rows("note", q)), 1)
			continue
		}
		w.wantCode(job.NotFound, s.Err)
		w.wantGone(mine, s.Job.ID)
		wantEqual(w, "the rows of the submit", len(w.rows("note", q)), 0)
	}
}

func sharedGroups(w *harness) {
	for round := range rounds {
		p := fmt.Sprint(round)
		group := func(body string) []any {
			return grouped(w.newSubmit(withRows(put(p, "of "+body, ""))), w.newSubmit(withRows(withAction(store.Insert, put(p, "id", body)))))
		}
		raced := w.race(round, group("a"), group("b"))
		applied := 0
		for _, b := range raced {
			first, second := b.Submits[0], b.Submits[1]
			wantEqual(w, "whether both of a group apply", first.Err == nil, second.Err == nil)
			if first.Err == nil {
				applied++
				continue
			}
			w.wantCode(job.BatchRefused, first.Err)
			w.wantCode(job.Conflict, second.Err)
			w.wantGone(mine, first.Job.ID)
		}
		wantEqual(w, "the groups that applied", applied, 1)
		wantEqual(w, "the rows", len(w.rows("note", p)), 2)
	}
	wantEqual(w, "the counts", w.counts(queue), job.Counts{Queued: 2 * rounds})
}

func sharedPut(w *harness) {
	for round := range rounds {
		p := fmt.Sprint(round)
		w.race(round, newWrite(put(p, "x", "a"), put(p, "y", "a")), newWrite(put(p, "x", "b"), put(p, "y", "b")))
		w.eachStore(func() {
			rows := w.rows("note", p)
			wantEqual(w, "the rows", len(rows), 2)
			wantEqual(w, "the second row's body", string(rows[1].Body), string(rows[0].Body))
		})
	}
}
