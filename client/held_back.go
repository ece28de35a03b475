package client

import "encoding/json"

// HeldBackBy says why a waiting job, or the next job of a queue, does not run yet. The
// zero value "" means that nothing holds it back. The server's reasons are delay,
// backoff, loss_backoff, key_limit, suspect, paused, max_running, no_worker, resource
// and turn. Later servers may have others.
type HeldBackBy string

// MarshalJSON encodes the reason as servers do: null for "".
func (h HeldBackBy) MarshalJSON() ([]byte, error) {
	if h == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(h))
}
