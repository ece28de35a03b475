package api

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Every cursor that is accepted has only one spelling.
func FuzzPageCursor(f *testing.F) {
	f.Add(PageCursor(job.NewID()))
	f.Add("page_")
	f.Add("page_7zzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Add(job.NewID().String())
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParsePageCursor(text)
		switch {
		case text == "":
			if err != nil || id != (job.ID{}) {
				t.Fatalf("no cursor: %v, %v", id, err)
			}
		case err == nil:
			if PageCursor(id) != text {
				t.Fatalf("%q is read as %q", text, PageCursor(id))
			}
		case job.CodeOf(err) != job.Invalid:
			t.Fatal(err)
		}
	})
}

func TestPageCursorRoundTrips(t *testing.T) {
	t.Parallel()
	for range 100 {
		id := job.NewID()
		if got, err := ParsePageCursor(PageCursor(id)); err != nil || got != id {
			t.Fatalf("%v: %v, %v", id, got, err)
		}
	}
}
