package client

import "encoding/json"

// HoldReason says what holds back a waiting job, or the next job of a queue; "" for nothing. The
// server's reasons are delay, backoff, loss_backoff, key_limit, suspect, paused,
// max_running, no_worker and turn; further ones may follow.
type HoldReason string

// MarshalJSON writes the reason as servers do: null for nothing.
func (h HoldReason) MarshalJSON() ([]byte, error) {
	if h == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(h))
}
