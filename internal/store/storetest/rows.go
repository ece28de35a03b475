package storetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func rowRules() []rule {
	return []rule{
		{"put writes an existing and a missing row", rowsPut},
		{"insert writes a missing row and conflicts with an existing one", rowsInsert},
		{"update writes an existing row only", rowsUpdate},
		{"move gives an existing row another id, and its body in place of a row there", rowsMove},
		{"require refuses when the row is missing", rowsRequire},
		{"require none refuses when any row of the kind is under the parent", rowsRequireNone},
		{"remove and remove all delete existing rows", rowsRemove},
		{"all conditions are checked before any row is written", rowsCheckedFirst},
		{"a refused write writes none of its rows", rowsAllOrNone},
		{"a later write of a batch sees the earlier", rowsInOneBatch},
		{"rows are listed by id in both directions from a cursor", rowsPaged},
		{"rows of different kinds and parents do not mix", rowsApart},
		{"rows of different owners do not mix in reads, conditions and removals", rowsOfOwners},
		{"the rows of a tenant are listed, whoever owns them", rowsOfTenant},
		{"bodies and names of any text are kept", rowsKept},
		{"a submit's rows apply with it", rowsOfSubmit},
		{"what an owner keeps is counted, and no longer when it is gone", rowsCounted},
		{"past the bound of an owner, new rows and keys are refused, and what frees bytes applies", rowsBounded},
		{"past the bound of an owner, deletes apply and are not remembered", deletesBounded},
	}
}

// keeps reads what all owners keep.
func (w *harness) keeps() store.Kept {
	w.Helper()
	k, err := w.store.Kept(w.ctx)
	wantEqual(w, "the refusal of Kept", err, nil)
	return k
}

func rowsCounted(w *harness) {
	wantEqual(w, "what a new store keeps", w.keeps(), store.Kept{})
	body := strings.Repeat("x", 1000)
	w.do(newWrite(put("p", "a", body)), newWrite(put("p", "b", body)))
	two := w.keeps()
	if two.Most != mine || two.MostBytes != two.Bytes || two.Bytes < 2000 || two.Bytes > 3000 {
		w.Errorf("for two rows of 1000 bytes: %+v", two)
	}
	w.do(newWrite(put("p", "a", body)), newWrite(withAction(store.Update, put("p", "a", body))), newWrite(withAction(store.Update, put("p", "c", body))))
	wantEqual(w, "what is kept when rows are replaced by equal ones", w.keeps(), two)
	moved := withAction(store.Move, put("p", "a", ""))
	moved.To = "b"
	w.do(newWrite(moved))
	if one := w.keeps(); one.Bytes*2 != two.Bytes {
		w.Errorf("for one row: %+v", one)
	}
	w.do(newWrite(put("p", "a", body)), newWrite(withAction(store.Remove, put("p", "a", ""))))
	other := put("p", "a", strings.Repeat("x", 5000))
	other.Owner = theirs
	w.do(newWrite(other))
	w.reopen()
	if k := w.keeps(); k.Most != theirs || k.Bytes-k.MostBytes != two.Bytes/2 {
		w.Errorf("of two owners: %+v", k)
	}
	all := withAction(store.RemoveAll, put("p", "", ""))
	others := all
	others.Owner = theirs
	w.do(newWrite(all), newWrite(others))
	wantEqual(w, "what is kept in the end", w.keeps(), store.Kept{})
}

func rowsBounded(w *harness) {
	w.kept = 10_000
	half := strings.Repeat("x", 5000)
	w.do(newWrite(put("p", "a", half)))
	w.mustRefuse(job.OwnerFull, newWrite(put("p", "b", half)))
	withRow := w.newSubmit(withRows(put("p", "b", half)))
	w.mustRefuse(job.OwnerFull, withRow)
	one, two := w.newSubmit(withRows(put("q", "a", half[:2600]))), w.newSubmit(withRows(put("q", "b", half[:2600])))
	one.Group = &store.Group{Size: 2}
	two.Group = one.Group
	w.try(one, two)
	wantEqual(w, "the refusals of a group that does not fit", fmt.Sprint(job.CodeOf(one.Err), job.CodeOf(two.Err)), fmt.Sprint(job.BatchRefused, job.OwnerFull))
	other := put("p", "b", half)
	other.Owner = theirs
	w.do(newWrite(other), newWrite(withAction(store.Require, put("p", "a", ""))))
	w.submit()

	w.kept = 100
	w.mustRefuse(job.OwnerFull, w.newSubmit(withIdempotency("k", "x")))
	w.submit()
	w.do(newWrite(withAction(store.Remove, put("p", "a", "")), put("p", "c", half)))
	w.do(newWrite(withAction(store.RemoveAll, put("p", "", ""))))
	w.kept = 1000
	w.do(w.newSubmit(withIdempotency("k", "x")))
}

func deletesBounded(w *harness) {
	w.do(newWrite(put("p", "a", strings.Repeat("x", 2000))))
	remembered, forgotten := w.submit(), w.submit()
	w.kept = 10_000
	w.do(newDelete(remembered))
	w.kept = 1000
	w.do(newDelete(forgotten), newDelete(remembered))
	w.mustRefuse(job.NotFound, newDelete(forgotten))
	full := w.keeps()
	w.kept = 0
	w.advance(2 * store.KeepDeletes)
	w.do(&store.Prune{Limit: 100})
	if k := w.keeps(); k.Bytes >= full.Bytes {
		w.Errorf("a record of a delete is counted when it is gone: %+v, then %+v", full, k)
	}
}

func rowsPut(w *harness) {
	for _, body := range []string{"one", "two", ""} {
		w.do(newWrite(put("p", "a", body)))
		r, err := w.store.Row(w.ctx, set("note", "p"), "a")
		if err != nil || string(r.Body) != body || r.Kind != "note" || r.Parent != "p" || r.ID != "a" {
			w.Errorf("the row is %q, %v", r, err)
		}
	}
	wantEqual(w, "the rows", len(w.rows("note", "p")), 1)
}

func rowsInsert(w *harness) {
	w.do(newWrite(withAction(store.Insert, put("p", "a", "first"))))
	second := newWrite(withAction(store.Insert, put("p", "a", "second")))
	w.mustRefuse(job.Conflict, second)
	wantEqual(w, "the body of the conflicting row", string(second.Conflict), "first")
	w.do(newWrite(withAction(store.Remove, put("p", "a", ""))))
	w.do(newWrite(withAction(store.Insert, put("p", "a", "third"))))
	wantEqual(w, "the body", string(w.rows("note", "p")[0].Body), "third")
}

func rowsUpdate(w *harness) {
	w.do(newWrite(withAction(store.Update, put("p", "a", "nothing"))))
	wantEqual(w, "the rows", len(w.rows("note", "p")), 0)
	w.do(newWrite(put("p", "a", "one")))
	w.do(newWrite(withAction(store.Update, put("p", "a", "two"))))
	wantEqual(w, "the body", string(w.rows("note", "p")[0].Body), "two")
}

func rowsMove(w *harness) {
	move := func(parent, id, to string) *store.Write {
		return newWrite(moveRow(put(parent, id, "not written"), to))
	}
	w.do(newWrite(put("p", "a", "one")), move("p", "a", "b"), move("p", "a", "c"), move("absent", "a", "b"))
	wantEqual(w, "the rows", fmt.Sprintf("%q", w.rows("note", "p")), fmt.Sprintf("%q", []store.Row{put("p", "b", "one")}))
	wantEqual(w, "the rows of another parent", len(w.rows("note", "absent")), 0)
	w.do(newWrite(put("p", "c", "two")), move("p", "c", "b"), move("p", "b", "b"))
	wantEqual(w, "the rows", fmt.Sprintf("%q", w.rows("note", "p")), fmt.Sprintf("%q", []store.Row{put("p", "b", "two")}))
}

func rowsRequire(w *harness) {
	w.do(newWrite(put("p", "x", "")))
	w.mustRefuse(job.NotFound, newWrite(withAction(store.Require, put("p", "a", "")), put("p", "b", "")))
	w.do(newWrite(put("p", "a", "kept")))
	w.do(newWrite(withAction(store.Require, put("p", "a", "not written")), put("p", "b", "")))
	wantEqual(w, "the body", string(w.rows("note", "p")[0].Body), "kept")
	wantEqual(w, "the rows", len(w.rows("note", "p")), 3)
}

func rowsRequireNone(w *harness) {
	none := func() *store.Write {
		return newWrite(withAction(store.RequireNone, put("p", "ignored", "not written")), put("q", "new", ""))
	}
	w.do(newWrite(put("p2", "a", ""), store.Row{Owner: mine, Kind: "other", Parent: "p", ID: "a"}), none())
	wantEqual(w, "the rows that it wrote", len(w.rows("note", "p")), 0)
	wantEqual(w, "the other rows", len(w.rows("note", "q")), 1)

	w.do(newWrite(withAction(store.Remove, put("q", "new", "")), put("p", "b", "second"), put("p", "a", "first")))
	refused := none()
	w.mustRefuse(job.Conflict, refused)
	wantEqual(w, "the body of the conflicting row", string(refused.Conflict), "first")
	s := w.newSubmit(withRows(withAction(store.RequireNone, put("p", "", ""))))
	w.mustRefuse(job.Conflict, s)
	wantEqual(w, "the conflict of a submit", string(s.Conflict), "first")
	wantEqual(w, "the rows of what was refused", len(w.rows("note", "q")), 0)

	w.do(newWrite(withAction(store.RemoveAll, put("p", "", ""))), none())
	wantEqual(w, "the rows", len(w.rows("note", "q")), 1)
}

func rowsRemove(w *harness) {
	w.do(newWrite(put("p", "a", ""), put("p", "b", ""), put("p", "c", ""), put("p2", "a", "")))
	w.do(newWrite(withAction(store.Remove, put("p", "b", "")), withAction(store.Remove, put("p", "absent", ""))))
	wantEqual(w, "the rows after one was removed", len(w.rows("note", "p")), 2)
	w.do(newWrite(withAction(store.RemoveAll, put("p", "ignored", "")), withAction(store.RemoveAll, put("empty", "", ""))))
	wantEqual(w, "the rows after all were removed", len(w.rows("note", "p")), 0)
	wantEqual(w, "the rows of another parent", len(w.rows("note", "p2")), 1)
	_, err := w.store.Row(w.ctx, set("note", "p"), "a")
	w.wantCode(job.NotFound, err)
}

func rowsCheckedFirst(w *harness) {
	w.do(newWrite(put("p", "a", "one")))
	w.do(newWrite(withAction(store.Remove, put("p", "a", "")), withAction(store.Require, put("p", "a", ""))))
	wantEqual(w, "the rows", len(w.rows("note", "p")), 0)
	w.mustRefuse(job.NotFound, newWrite(put("p", "a", "two"), withAction(store.Require, put("p", "a", ""))))
	w.do(newWrite(put("p", "a", "three")))
	met := newWrite(withAction(store.RemoveAll, put("p", "", "")), withAction(store.Insert, put("p", "a", "four")))
	w.mustRefuse(job.Conflict, met)
	wantEqual(w, "the body of the conflicting row", string(met.Conflict), "three")
}

func rowsAllOrNone(w *harness) {
	w.do(newWrite(put("p", "there", "old")))
	bad := newWrite(put("p", "new", ""), put("p", "there", "changed"), withAction(store.RemoveAll, put("q", "", "")), withAction(store.Insert, put("p", "there", "")))
	good := newWrite(put("p", "good", ""))
	w.try(bad, good)
	w.wantCode(job.Conflict, bad.Err)
	wantEqual(w, "the neighbour's refusal", good.Err, nil)
	wantEqual(w, "the rows", fmt.Sprintf("%q", w.rows("note", "p")), fmt.Sprintf("%q", []store.Row{put("p", "good", ""), put("p", "there", "old")}))
}

func rowsInOneBatch(w *harness) {
	first, second := newWrite(withAction(store.Insert, put("p", "a", "1"))), newWrite(withAction(store.Insert, put("p", "a", "2")))
	third := newWrite(withAction(store.Update, put("p", "a", "3")), withAction(store.Require, put("p", "a", "")))
	s := w.newSubmit(withRows(withAction(store.Insert, put("p", "a", "4"))))
	w.try(first, second, third, s)
	wantEqual(w, "the first one's refusal", first.Err, nil)
	w.wantCode(job.Conflict, second.Err)
	wantEqual(w, "the conflict of the second", string(second.Conflict), "1")
	wantEqual(w, "the third one's refusal", third.Err, nil)
	w.wantCode(job.Conflict, s.Err)
	wantEqual(w, "the conflict of the submit", string(s.Conflict), "3")
}

func rowsOfTenant(w *harness) {
	for i := range 12 {
		owner := mine
		if i%2 == 1 {
			owner = theirs
		}
		r := store.Row{Owner: owner, Kind: fmt.Sprint("kind", i%3), Parent: fmt.Sprint(i % 4), ID: fmt.Sprint(i), Body: []byte("x")}
		other := r
		other.Owner.Tenant = elsewhere.Tenant
		w.do(newWrite(r, other))
	}
	for left := 12; left > 0; {
		rows, err := w.store.TenantRows(w.ctx, mine.Tenant, 5)
		if err != nil || len(rows) != min(left, 5) {
			w.Fatalf("of %d rows %d are listed, %v", left, len(rows), err)
		}
		for i := range rows {
			if rows[i].Owner.Tenant != mine.Tenant || rows[i].Body != nil {
				w.Errorf("listed is %+v", rows[i])
			}
			rows[i].Action = store.Remove
		}
		w.do(newWrite(rows...))
		left -= len(rows)
	}
	if rows, err := w.store.TenantRows(w.ctx, elsewhere.Tenant, 100); err != nil || len(rows) != 12 {
		w.Errorf("of the other tenant are %d rows, %v", len(rows), err)
	}
}

func rowsPaged(w *harness) {
	var all []string
	for i := range 25 {
		all = append(all, fmt.Sprintf("%03d", i*3))
		w.do(newWrite(put("p", all[i], "")))
	}
	walk := func(page store.RowPage) (got []string) {
		for {
			rows, err := w.store.Rows(w.ctx, set("note", "p"), page)
			if err != nil || len(rows) > page.Limit {
				w.Fatalf("a page of %d has %d rows, %v", page.Limit, len(rows), err)
			}
			if len(rows) == 0 {
				return got
			}
			for _, r := range rows {
				got = append(got, r.ID)
			}
			page.After = rows[len(rows)-1].ID
		}
	}
	wantEqual(w, "the rows forward", fmt.Sprint(walk(store.RowPage{Limit: 4})), fmt.Sprint(all))
	wantEqual(w, "the rows forward from 034", fmt.Sprint(walk(store.RowPage{After: "034", Limit: 7})), fmt.Sprint(all[12:]))
	wantEqual(w, "the rows forward from 036", fmt.Sprint(walk(store.RowPage{After: "036", Limit: 7})), fmt.Sprint(all[13:]))
	back := walk(store.RowPage{Desc: true, Limit: 4})
	for i := range back {
		wantEqual(w, "the row back", back[i], all[len(all)-1-i])
	}
	wantEqual(w, "the rows backward", len(back), len(all))
	wantEqual(w, "the rows backward from 006", fmt.Sprint(walk(store.RowPage{After: "006", Desc: true, Limit: 9})), "[003 000]")
}

func rowsApart(w *harness) {
	names := []string{"a", "ab", "a b", "A", "", "a\x00b", "%", "é"}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !w.accepts(newWrite(store.Row{Owner: mine, Kind: name, Parent: name, ID: "i", Body: []byte("first")}), name)
	})
	n := 0
	for _, kind := range names {
		for _, parent := range names {
			n++
			w.do(newWrite(store.Row{Owner: mine, Kind: kind, Parent: parent, ID: "i", Body: fmt.Append(nil, n)}))
		}
	}
	n = 0
	for _, kind := range names {
		for _, parent := range names {
			n++
			rows := w.rows(kind, parent)
			if len(rows) != 1 || string(rows[0].Body) != fmt.Sprint(n) {
				w.Errorf("%q under %q has the rows %q", kind, parent, rows)
			}
		}
	}
	w.do(newWrite(store.Row{Owner: mine, Kind: "a", Parent: "a", Action: store.RemoveAll}))
	wantEqual(w, "the rows of a parent that begins alike", len(w.rows("a", "ab")), 1)
}

func rowsOfOwners(w *harness) {
	owners := []job.Owner{mine, theirs, elsewhere, {}, {Tenant: mine.User, User: mine.Tenant}}
	of := func(o job.Owner, do store.Action) store.Row {
		return store.Row{Owner: o, Kind: "note", Parent: "p", ID: "a", Body: []byte(o.Tenant + "/" + o.User), Action: do}
	}
	for i, o := range owners {
		w.do(newWrite(of(o, store.RequireNone), of(o, store.Insert)))
		for _, later := range owners[i+1:] {
			w.mustRefuse(job.NotFound, newWrite(of(later, store.Require)))
		}
	}
	check := func(there bool, o job.Owner) {
		w.Helper()
		row, want := of(o, store.Put), job.NotFound
		if there {
			want = ""
		}
		got, err := w.store.Row(w.ctx, row.Set(), "a")
		rows, _ := w.store.Rows(w.ctx, row.Set(), store.RowPage{Limit: 10})
		if job.CodeOf(err) != want || there != (len(rows) == 1) || there && (string(got.Body) != string(row.Body) || got.Owner != o || rows[0].Owner != o) {
			w.Errorf("%v has the row %q and the rows %q: %v", o, got, rows, err)
		}
	}
	for _, o := range owners {
		check(true, o)
	}
	w.do(newWrite(of(owners[0], store.Remove), of(owners[1], store.RemoveAll)))
	for i, o := range owners {
		check(i > 1, o)
	}
}

func rowsKept(w *harness) {
	texts := []string{"", "plain", "\x00", "nul\x00inside", "\xff\xfe", "é", "'; --", "line\nbreak"}
	ids := slices.DeleteFunc(slices.Clone(texts), func(t string) bool {
		return !w.accepts(newWrite(store.Row{Owner: mine, Kind: "k", Parent: "p", ID: "id" + t, Body: []byte(t)}), t)
	})
	for i, t := range texts {
		w.do(newWrite(store.Row{Owner: mine, Kind: "bodies", Parent: "p", ID: fmt.Sprint(i), Body: []byte(t)}))
	}
	for _, t := range ids {
		r, err := w.store.Row(w.ctx, set("k", "p"), "id"+t)
		if err != nil || string(r.Body) != t || r.ID != "id"+t {
			w.Errorf("the row %q was read as %q, %v", t, r, err)
		}
	}
	for i, t := range texts {
		r, err := w.store.Row(w.ctx, set("bodies", "p"), fmt.Sprint(i))
		if err != nil || string(r.Body) != t {
			w.Errorf("the body %q was read as %q, %v", t, r.Body, err)
		}
	}
	wantEqual(w, "the rows", len(w.rows("k", "p")), len(ids))
}

func rowsOfSubmit(w *harness) {
	w.do(newWrite(put("p", "parent", "")))
	w.submit(withRows(withAction(store.Require, put("p", "parent", "")), withAction(store.Insert, put("p", "question", "why"))))
	w.submit(leasedAs(w.token()), withRows(put("p", "other", "")))
	w.submit(delayed(1), withRows(withAction(store.Remove, put("p", "other", ""))))
	wantEqual(w, "the rows", len(w.rows("note", "p")), 2)
}
