package sqlite

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

func newRing(t *testing.T, keys ...string) *sealed.Ring {
	t.Helper()
	var text string
	for _, key := range keys {
		text += key + "\n"
	}
	ring, err := sealed.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// reopenWithRing closes the store and opens it again with other keys.
func (d *harness) reopenWithRing(ring *sealed.Ring) {
	d.Helper()
	if err := d.Store.Close(); err != nil {
		d.Fatal(err)
	}
	s, err := Open(d.Context(), d.path, Options{Clock: func() time.Time { return d.now }, Unsynced: true, Readers: 2, Ring: ring})
	if err != nil {
		d.Fatal(err)
	}
	d.Store = s
}

var sealedSet = store.RowSet{Owner: testOwner, Kind: "note", Parent: "p"}

// Without the key of some values, only what needs these values is refused, with a code, and nothing
// changes. With the key everything is there again.
func TestMissingKeyConcernsItsValuesOnly(t *testing.T) {
	t.Parallel()
	d, ring := newHarness(t), newRing(t, sealed.NewKey())
	plain := d.submit()
	d.reopenWithRing(ring)
	secret := d.submit(func(s *store.Submit) { s.Input = []byte("a secret") })
	row := store.Row{Owner: testOwner, Kind: "note", Parent: "p", ID: "1", Body: []byte("a secret row")}
	d.apply(&store.Write{Rows: []store.Row{row}})

	d.reopenWithRing(nil)
	if _, err := d.Input(d.Context(), testOwner, secret); job.CodeOf(err) != job.EncryptionKeyMissing {
		t.Errorf("the input without the key: %v", err)
	}
	if _, err := d.Row(d.Context(), sealedSet, "1"); job.CodeOf(err) != job.EncryptionKeyMissing {
		t.Errorf("the row without the key: %v", err)
	}
	other := row
	other.Action = store.Insert
	insert, claim := &store.Write{Rows: []store.Row{other}}, newClaim(2)
	d.apply(insert, claim)
	if job.CodeOf(insert.Err) != job.EncryptionKeyMissing {
		t.Errorf("an insert of the row without the key: %v", insert.Err)
	}
	for _, c := range claim.Claimed {
		if got := job.CodeOf(c.Unreadable); (got == job.EncryptionKeyMissing) != (c.Job.ID == secret) || c.Job.ID == plain && string(c.Input) != "{}" {
			t.Errorf("a claimed job has the input %q, %v", c.Input, c.Unreadable)
		}
	}
	if len(claim.Claimed) != 2 {
		t.Errorf("%d jobs were claimed", len(claim.Claimed))
	}

	d.reopenWithRing(ring)
	if input, err := d.Input(d.Context(), testOwner, secret); err != nil || string(input) != "a secret" {
		t.Errorf("the input with the key again: %q, %v", input, err)
	}
	if got, err := d.Row(d.Context(), sealedSet, "1"); err != nil || !bytes.Equal(got.Body, row.Body) {
		t.Errorf("the row with the key again: %q, %v", got.Body, err)
	}
}

// Output that is not in a job's log yet needs its key at the opening, and is sealed again with the
// rest.
func TestTailIsSealedAgain(t *testing.T) {
	t.Parallel()
	d, old, next := newHarness(t), sealed.NewKey(), sealed.NewKey()
	d.reopenWithRing(newRing(t, old))
	id := d.submit()
	claim := newClaim(1)
	d.apply(claim)
	lease := claim.Claimed[0].Lease()
	d.apply(&store.Append{Lease: lease, Entries: []job.Entry{{Seq: 1, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("a word")}}})
	if err := d.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), d.path, Options{Unsynced: true}); job.CodeOf(err) != job.EncryptionKeyMissing {
		t.Errorf("an opening without the key: %v", err)
	}
	s, err := Open(t.Context(), d.path, Options{Clock: func() time.Time { return d.now }, Unsynced: true, Readers: 2, Ring: newRing(t, next, old)})
	if err != nil {
		t.Fatal(err)
	}
	d.Store = s
	for cursor, more := "", true; more; more = cursor != "" {
		if cursor, _, err = d.Reseal(t.Context(), cursor); err != nil {
			t.Fatal(err)
		}
	}
	d.reopenWithRing(newRing(t, next))
	if _, text, err := d.Text(t.Context(), testOwner, id, 100); err != nil || text != "a word" {
		t.Errorf("the text is %q, %v", text, err)
	}
	d.apply(&store.Append{Lease: lease, Entries: []job.Entry{{Seq: 2, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte(" more")}}})
	if _, text, err := d.Text(t.Context(), testOwner, id, 100); err != nil || text != "a word more" {
		t.Errorf("the text is %q, %v", text, err)
	}
}

// Values that were exchanged do not open, and are not taken for each other's.
func TestExchangedValuesAreDamaged(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.reopenWithRing(newRing(t, sealed.NewKey()))
	one := d.submit(func(s *store.Submit) { s.Input = []byte("of the one") })
	d.submit(func(s *store.Submit) { s.Input = []byte("of another") })
	d.exec("UPDATE inputs SET body = (SELECT body FROM inputs i WHERE i.n <> inputs.n)")
	if input, err := d.Input(d.Context(), testOwner, one); !errors.Is(err, sealed.ErrDamaged) {
		t.Errorf("the input of another job is read as %q, %v", input, err)
	}
}
