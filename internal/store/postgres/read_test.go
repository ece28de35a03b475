package postgres

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A page of output may need several statements, and so may a long text.
func TestLongOutputIsReadWhole(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := newSubmit(leased)
	d.apply(s)
	texts := strings.Fields(strings.Repeat("w0 ", maxEntries+textEntries))
	for i := range texts {
		texts[i] = fmt.Sprint("w", i, " ")
	}
	d.apply(&store.Append{Lease: leaseOf(s), Entries: entriesAfter(0, texts...)})
	whole := strings.Join(texts, "")
	for _, limit := range []int{1, 100, 10_000, len(whole) - 1, len(whole), 1 << 20} {
		if _, text, err := d.Text(t.Context(), local, s.Job.ID, limit); err != nil || text != whole[:min(limit, len(whole))] {
			t.Errorf("up to %d bytes the text has %d bytes, want %d: %v", limit, len(text), min(limit, len(whole)), err)
		}
	}
	for _, maxBytes := range []int{0, 1, 100, 10_000, 300_000, 1 << 20} {
		read, pages := "", 0
		for after := int64(0); after < int64(len(texts)); pages++ {
			j, page, err := d.Store.Output(t.Context(), local, s.Job.ID, after, maxBytes)
			if err != nil || len(page) == 0 || j.Cursor != int64(len(texts)) {
				t.Fatalf("a page of %d bytes after %d has %d entries: %v", maxBytes, after, len(page), err)
			}
			size := 0
			for _, e := range page {
				if after++; e.Seq != after {
					t.Fatalf("the entry %d follows %d", e.Seq, after-1)
				}
				size += len(e.Data)
				read += string(e.Data)
			}
			if size > maxBytes && len(page) > 1 {
				t.Fatalf("a page of %d bytes has %d", maxBytes, size)
			}
			if maxBytes < 10_000 && pages > 10 {
				break // small pages need too many reads
			}
		}
		if !strings.HasPrefix(whole, read) || maxBytes >= 10_000 && read != whole {
			t.Errorf("pages of %d bytes have %d bytes of the output", maxBytes, len(read))
		}
	}
}

func TestResultIsReadInParts(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := newSubmit(leased)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	d.apply(s)
	d.apply(&store.Finish{Lease: leaseOf(s), To: job.Succeeded, Result: &job.Result{ContentType: "a/b", Body: body}})
	for _, c := range []struct {
		from  int64
		limit int
		want  []byte
	}{
		{0, 5, body[:5]}, {3, 100, body[3:103]}, {int64(len(body)) - 2, 100, body[len(body)-2:]}, {0, 1 << 30, body},
		{int64(len(body)), 5, nil}, {1 << 40, 5, nil}, {5, 0, nil},
	} {
		part, err := d.Result(t.Context(), local, s.Job.ID, c.from, c.limit)
		if err != nil || part.Size != int64(len(body)) || !bytes.Equal(part.Body, c.want) {
			t.Errorf("%d bytes from %d: %d bytes of %d, %v", c.limit, c.from, len(part.Body), part.Size, err)
		}
	}
	// The parts of a value that is not compressed are read alone.
	var compressed bool
	err := d.db.Connect(t).QueryRow(t.Context(), "select pg_column_compression(body) is not null from results").Scan(&compressed)
	if err != nil || compressed {
		t.Errorf("the result is compressed: %v", err)
	}
}

// Names that the database cannot store are in no row.
func TestReadsOfBadNamesFindNothing(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := newSubmit()
	d.apply(s)
	for _, bad := range []string{"\x00", "local\x00", "\xff"} {
		o := job.Owner{Tenant: "t", User: bad}
		_, err := d.Job(t.Context(), o, s.Job.ID)
		if job.CodeOf(err) != job.NotFound {
			t.Errorf("the job of %q: %v", bad, err)
		}
		if _, _, err := d.Store.Output(t.Context(), o, s.Job.ID, 0, 100); job.CodeOf(err) != job.NotFound {
			t.Errorf("the output of a job of %q: %v", bad, err)
		}
		if _, _, err := d.Idempotent(t.Context(), local, bad); job.CodeOf(err) != job.NotFound {
			t.Errorf("the idempotency key %q: %v", bad, err)
		}
		if _, err := d.Row(t.Context(), store.RowSet{Owner: local, Kind: "k", Parent: "p"}, bad); job.CodeOf(err) != job.NotFound {
			t.Errorf("the row %q: %v", bad, err)
		}
		for _, f := range []job.Filter{{Owner: o}, {Owner: local, Key: &bad}, {Owner: local, Queue: bad}, {Owner: local, ErrorCode: bad}} {
			f.Limit = 5
			if page, next, err := d.List(t.Context(), f); err != nil || len(page) > 0 || next != (job.ID{}) {
				t.Errorf("the list with %q has %d jobs, %v", bad, len(page), err)
			}
		}
		v, err := d.Versions(t.Context(), []store.OwnedID{{Owner: o, ID: s.Job.ID}, {Owner: local, ID: s.Job.ID}})
		if err != nil || len(v) != 1 {
			t.Errorf("%d versions, %v", len(v), err)
		}
	}
	if _, err := d.Job(t.Context(), local, s.Job.ID); err != nil {
		t.Error(err)
	}
}

// A read that meets a connection that was lost while it was idle uses another one.
func TestReadsSurviveLostConnections(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := newSubmit()
	d.apply(s)
	for range 3 {
		for range 4 { // all connections
			if _, err := d.Job(t.Context(), local, s.Job.ID); err != nil {
				t.Fatal(err)
			}
		}
		d.db.KillBackends(t)
		if _, err := d.Job(t.Context(), local, s.Job.ID); err != nil {
			t.Fatal(err)
		}
		if page, _, err := d.List(t.Context(), job.Filter{Owner: local, Limit: 5}); err != nil || len(page) != 1 {
			t.Fatal(len(page), err)
		}
		if _, text, err := d.Text(t.Context(), local, s.Job.ID, 5); err != nil || text != "" {
			t.Fatal(text, err)
		}
	}
}

// Lists hold at most half of the connections, so reads of one job go on beside any number.
func TestListsLeaveConnectionsToOtherReads(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	s := newSubmit()
	d.apply(s)
	d.lists <- struct{}{} // a list that never ends: of two connections, one is for lists
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := d.List(ctx, job.Filter{Owner: local, Limit: 5}); err == nil {
		t.Error("two lists are read at once")
	}
	if _, err := d.Job(t.Context(), local, s.Job.ID); err != nil {
		t.Error(err)
	}
	<-d.lists
}

func TestReadsWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.fill()
	s, err := Open(t.Context(), d.db.URL(), Options{Clock: func() time.Time { return d.now }, Readers: 1, Unprepared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	want, _, err := d.List(t.Context(), job.Filter{Owner: local, Limit: 50})
	got, _, err2 := s.List(t.Context(), job.Filter{Owner: local, Limit: 50})
	if err != nil || err2 != nil || len(want) != 5 || !reflect.DeepEqual(want, got) {
		t.Errorf("%d jobs are listed with prepared statements and %d without: %v, %v", len(want), len(got), err, err2)
	}
	var prepared int
	rows, err := s.pool.Query(t.Context(), "select count(*)::bigint from pg_prepared_statements")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		err = rows.Scan(&prepared)
	}
	if err != nil || prepared > 0 {
		t.Errorf("%d statements are prepared: %v", prepared, err)
	}
}

// A search for running jobs that a condition leaves out reads several times.
func TestRunningJobsAreFoundBehindManyOthers(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	overrun := func(s *store.Submit) { s.Job.Policy.Timeouts.RunHard = time.Second }
	var want []job.ID
	for range 3 {
		for range 3 {
			ops := make([]any, 250)
			for i := range ops {
				ops[i] = newSubmit(leased)
			}
			d.apply(ops...)
		}
		s := newSubmit(leased, overrun)
		d.apply(s)
		want = append(want, s.Job.ID)
	}
	d.now = d.now.Add(2 * time.Second)
	for _, limit := range []int{1, 2, 3, 500} {
		var got []job.ID
		for after := (job.ID{}); ; {
			page, err := d.Running(t.Context(), store.OverrunOnly, after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("a page of %d has %d: %v", limit, len(page), err)
			}
			for i := range page {
				after = page[i].Job.ID
				got = append(got, after)
			}
			if len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v, want %v", limit, got, want)
		}
	}
	for _, filter := range []store.RunningFilter{store.AllRunning, store.LapsedOnly, store.CancelOnly, store.SilentOnly} {
		wanted := 0
		if filter == store.AllRunning {
			wanted = 7
		}
		if page, err := d.Running(t.Context(), filter, job.ID{}, 7); err != nil || len(page) != wanted {
			t.Errorf("the filter %d lists %d jobs, want %d: %v", filter, len(page), wanted, err)
		}
	}
}
