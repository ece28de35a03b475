package api

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// IdempotencyKey returns the request's Idempotency-Key, or "" where the header is missing.
// It refuses an invalid or repeated header with [job.Invalid].
func IdempotencyKey(h http.Header) (string, error) {
	keys := h["Idempotency-Key"]
	if len(keys) == 0 {
		return "", nil
	}
	if len(keys) > 1 || !ValidIdempotencyKey(keys[0]) {
		return "", job.Errorf(job.Invalid, "Idempotency-Key must be one text of 1 to %d printable ASCII characters", job.MaxKey)
	}
	return keys[0], nil
}

// ValidIdempotencyKey reports whether a text has 1 to [job.MaxKey] printable ASCII
// characters.
func ValidIdempotencyKey(key string) bool {
	if key == "" || len(key) > job.MaxKey {
		return false
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return false
		}
	}
	return true
}
