package sqlite

import (
	"context"
	"errors"
	"os"
	"testing"
)

// Connections open only for reads at the same time, and a connection that cannot open fails one
// read and no later one.
func TestReadersOpenWhenOthersAreBusy(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	id := d.submit()
	for range 3 {
		if _, err := d.Job(d.Context(), testOwner, id); err != nil {
			t.Fatal(err)
		}
	}
	if open, all := len(d.readers.open), cap(d.readers.open); open != 1 || all < 2 || len(d.readers.unused) != all-1 {
		t.Fatalf("after reads one by one %d of %d readers have a connection", open, all)
	}

	first := takeReader(t, &d.readers)
	if err := os.Rename(d.path, d.path+".moved"); err != nil {
		t.Fatal(err)
	}
	_, err := d.Job(d.Context(), testOwner, id)
	if _, created := os.Stat(d.path); err == nil || created == nil {
		t.Fatal("without the file a second reader opened")
	}
	if err := os.Rename(d.path+".moved", d.path); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Job(d.Context(), testOwner, id); err != nil {
		t.Errorf("after a failed opening: %v", err)
	}
	d.readers.giveBack(first)
	if open := len(d.readers.open); open != 2 {
		t.Errorf("%d readers have a connection, want 2", open)
	}

	for range cap(d.readers.open) {
		defer d.readers.giveBack(takeReader(t, &d.readers))
	}
	ctx, cancel := context.WithCancel(d.Context())
	cancel()
	if _, err := d.Job(ctx, testOwner, id); !errors.Is(err, context.Canceled) {
		t.Errorf("with all readers busy, a cancelled read ended with %v", err)
	}
}
