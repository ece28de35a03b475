package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Any header is either accepted unchanged or refused.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "k", "a key", "8e03978e-40d5-43e8-bc93-6894a57f9324", "\x00", "\x7f", "schlüssel", string(make([]byte, job.MaxKey+1))} {
		f.Add(seed, 1)
		f.Add(seed, 2)
	}
	f.Fuzz(func(t *testing.T, value string, times int) {
		h := http.Header{}
		for range min(max(times, 0), 3) {
			h.Add("Idempotency-Key", value)
		}
		key, err := IdempotencyKey(h)
		switch {
		case err != nil && (key != "" || job.CodeOf(err) != job.Invalid):
			t.Fatalf("%q is refused with %v, and read as %q", value, err, key)
		case err == nil && times > 0 && (key != value || times > 1 || key == "" || len(key) > job.MaxKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })):
			t.Fatalf("%q, given %d times, is read as %q", value, times, key)
		case err == nil && times <= 0 && key != "":
			t.Fatalf("a missing header is read as %q", key)
		}
	})
}
