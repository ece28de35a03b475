package callback

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// books returns the books of several processes on one store.
func books(t *testing.T, n int) (list []*Book) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "jobs.db"), sqlite.Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var one sync.Mutex // only one goroutine at a time applies a batch
	write := func(ctx context.Context, rows ...store.Row) error {
		one.Lock()
		defer one.Unlock()
		b, op := store.NewBatch(), &store.Write{Rows: rows}
		b.Add(op)
		if err := store.Commit(ctx, s, b); err != nil {
			return err
		}
		return op.Err
	}
	for range n {
		list = append(list, NewBook(Config{Rows: s, Write: write, CheckURL: func(string) error { return nil }, Log: slog.New(slog.DiscardHandler)}))
	}
	return list
}

func settings(name string) Settings {
	url, events := "https://a.example/"+name, job.Events(job.AllEvents)
	return Settings{Name: &name, URL: &url, Events: &events}
}

func TestChangesOfSeveralProcessesAreAllKept(t *testing.T) {
	t.Parallel()
	list := books(t, 3)
	var all sync.WaitGroup
	for _, b := range list {
		for _, name := range []string{"x", "y"} {
			all.Go(func() {
				e, err := b.Create(t.Context(), "shop", settings(name))
				if err == nil {
					_, err = b.Rotate(t.Context(), "shop", e.ID, true)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	for _, b := range list {
		got, err := b.List(t.Context(), "shop")
		if err != nil || len(got) != 6 {
			t.Fatalf("%d endpoints, %v; want 6", len(got), err)
		}
		for i := range got {
			if got[i].OldUntil.IsZero() {
				t.Errorf("the rotation of %s is lost", got[i].ID)
			}
		}
		if other, _ := b.List(t.Context(), "another"); len(other) != 0 {
			t.Errorf("another tenant has %v", other)
		}
	}
}

func TestAnotherProcessFindsANewEndpointAtOnce(t *testing.T) {
	t.Parallel()
	list := books(t, 2)
	e, err := list[0].Create(t.Context(), "", settings("x"))
	if err != nil {
		t.Fatal(err)
	}
	d := webhook.Delivery{Endpoint: e.ID}
	target, err := list[1].Target(t.Context(), job.Owner{User: "ann"}, &d)
	if err != nil || target.URL != e.URL || target.Secrets[0].Reveal() != e.Secret.Reveal() {
		t.Errorf("%+v, %v", target, err)
	}
	if _, err := list[1].Target(t.Context(), job.Owner{Tenant: "another"}, &d); job.FaultOf(err).Code != codeDeleted {
		t.Errorf("another tenant gets %v", err)
	}
	if _, err := list[0].Disable(t.Context(), "", e.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if err := list[1].Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := list[1].Target(t.Context(), job.Owner{}, &d); job.FaultOf(err).Code != codeDisabled {
		t.Errorf("a disabled endpoint gets %v", err)
	}
	// The other process enables it, and this one does not know yet.
	if _, err := list[0].Enable(t.Context(), "", e.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := list[1].Target(t.Context(), job.Owner{}, &d); err != nil {
		t.Errorf("an endpoint that was enabled again gets %v", err)
	}
	// Each process signs with the same default secret, whichever makes it.
	a, err1 := list[0].Target(t.Context(), job.Owner{}, &webhook.Delivery{URL: "https://b.example"})
	b, err2 := list[1].Target(t.Context(), job.Owner{}, &webhook.Delivery{URL: "https://b.example"})
	if err1 != nil || err2 != nil || a.Secrets[0].Reveal() != b.Secrets[0].Reveal() {
		t.Errorf("two default secrets: %v %v", err1, err2)
	}
}
