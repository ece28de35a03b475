package chat

import (
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// stay is how soon the next heartbeat is to come. A job that may be abandoned is
// twice as patient at least.
const stay = 60 * time.Second

// postHeartbeat notes that a user is here: their jobs are not abandoned.
func (f *API) postHeartbeat(w http.ResponseWriter, r *http.Request) error {
	if err := noBody(r); err != nil {
		return err
	}
	f.engine.MarkPresent(gate.Owner(r))
	api.WriteJSON(w, http.StatusOK, struct {
		Status    string  `json:"status"`
		ExpiresIn float64 `json:"expires_in_s"`
	}{"ok", stay.Seconds()})
	return nil
}
