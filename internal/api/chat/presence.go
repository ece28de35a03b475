package chat

import (
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// presenceTTL is how soon a client should send its next heartbeat. A job is abandoned after
// twice this time at the earliest.
const presenceTTL = 60 * time.Second

// postHeartbeat records that a user is present, so that the user's jobs are not abandoned.
func (a *API) postHeartbeat(w http.ResponseWriter, r *http.Request) error {
	// The clients of the application that this API comes from send bodies of their own.
	if _, err := api.ReadBody(r, maxSmallBody); err != nil {
		return err
	}
	a.engine.MarkPresent(gate.CallerFrom(r).Owner())
	api.WriteJSON(w, http.StatusOK, struct {
		Status    string  `json:"status"`
		ExpiresIn float64 `json:"expires_in_s"`
	}{"ok", presenceTTL.Seconds()})
	return nil
}
