package stream

import (
	"testing"
)

// Every id that is accepted has only one spelling.
func FuzzEventID(f *testing.F) {
	for _, seed := range []string{"0", "7", "7.done", "-1", "07", ".done", "7.done.done", "9223372036854775807", "9223372036854775808"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseEventID(text)
		if err != nil || text == "" {
			return
		}
		if got := string(id.Append(nil)); got != text || id.Seq < 0 {
			t.Fatalf("%q is read as %q", text, got)
		}
	})
}
