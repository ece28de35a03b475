package api

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// IdempotencyKey is the request's Idempotency-Key, or "" where there is none.
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

// ValidIdempotencyKey says whether a text may be an idempotency key.
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
