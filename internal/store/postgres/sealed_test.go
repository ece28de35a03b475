package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// openWithRing opens another store on the database of the harness, as another process does.
func (d *harness) openWithRing(ring *sealed.Ring) *harness {
	d.Helper()
	other := &harness{T: d.T, db: d.db, now: d.now}
	s, err := Open(d.Context(), d.db.URL(), Options{Clock: func() time.Time { return other.now }, Readers: 2, Ring: ring})
	if err != nil {
		d.Fatal(err)
	}
	other.Store = s
	d.Cleanup(func() { _ = s.Close() })
	return other
}

// A process without the key of some values is refused only what needs these values, with a code, and
// changes nothing in them. Values that were exchanged do not open.
func TestMissingKeyConcernsItsValuesOnly(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	ring, err := sealed.Parse(sealed.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	with := d.openWithRing(ring)
	plain, secret := newSubmit(), newSubmit(func(s *store.Submit) { s.Input = []byte("a secret") })
	row := store.Row{Owner: local, Kind: "note", Parent: "p", ID: "1", Body: []byte("a secret row")}
	d.apply(plain)
	with.apply(secret, &store.Write{Rows: []store.Row{row}})

	if _, err := d.Input(t.Context(), local, secret.Job.ID); job.CodeOf(err) != job.EncryptionKeyMissing {
		t.Errorf("the input without the key: %v", err)
	}
	if _, err := d.Row(t.Context(), row.Set(), "1"); job.CodeOf(err) != job.EncryptionKeyMissing {
		t.Errorf("the row without the key: %v", err)
	}
	other := row
	other.Action = store.Insert
	insert, claim := &store.Write{Rows: []store.Row{other}}, &store.Claim{Queue: "q", Worker: "w", LeaseFor: time.Minute, Tokens: []job.Token{job.NewToken(), job.NewToken()}}
	d.apply(insert, claim)
	if job.CodeOf(insert.Err) != job.EncryptionKeyMissing {
		t.Errorf("an insert of the row without the key: %v", insert.Err)
	}
	for _, c := range claim.Claimed {
		isSecret := c.Job.ID == secret.Job.ID
		if got := job.CodeOf(c.Unreadable); (got == job.EncryptionKeyMissing) != isSecret || !isSecret && string(c.Input) != "input" {
			t.Errorf("a claimed job has the input %q, %v", c.Input, c.Unreadable)
		}
	}
	if len(claim.Claimed) != 2 {
		t.Errorf("%d jobs were claimed", len(claim.Claimed))
	}
	if input, err := with.Input(t.Context(), local, secret.Job.ID); err != nil || string(input) != "a secret" {
		t.Errorf("the input with the key: %q, %v", input, err)
	}
	if got, err := with.Row(t.Context(), row.Set(), "1"); err != nil || string(got.Body) != "a secret row" {
		t.Errorf("the row with the key: %q, %v", got.Body, err)
	}

	d.exec("update inputs set body = (select body from inputs i where i.n <> inputs.n)")
	if input, err := with.Input(t.Context(), local, plain.Job.ID); !errors.Is(err, sealed.ErrDamaged) {
		t.Errorf("the input of another job is read as %q, %v", input, err)
	}
}
