package jobs

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A page's cursor leads back to where it came from, and to nowhere else.
func FuzzPageCursor(f *testing.F) {
	f.Add(pageCursor(anID))
	f.Add("page_")
	f.Add("page_7zzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Add(anID.String())
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parsePageCursor(text)
		switch {
		case text == "":
			if err != nil || id != (job.ID{}) {
				t.Fatalf("no cursor: %v, %v", id, err)
			}
		case err == nil:
			if pageCursor(id) != text {
				t.Fatalf("%q is read as %q", text, pageCursor(id))
			}
		case job.CodeOf(err) != job.Invalid:
			t.Fatal(err)
		}
	})
}

// An event's id has one spelling.
func FuzzEventID(f *testing.F) {
	for _, seed := range []string{"0", "7", "7.done", "-1", "07", ".done", "7.done.done", "9223372036854775807", "9223372036854775808"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseEventID(text)
		if err != nil || text == "" {
			return
		}
		if got := string(id.append(nil)); got != text || id.seq < 0 {
			t.Fatalf("%q is read as %q", text, got)
		}
	})
}

func TestPageCursorsRoundTrip(t *testing.T) {
	for range 100 {
		id := job.NewID()
		if got, err := parsePageCursor(pageCursor(id)); err != nil || got != id {
			t.Fatalf("%v: %v, %v", id, got, err)
		}
	}
}
