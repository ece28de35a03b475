package jobs

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// changeTimeout is how long a change of many jobs may take. Then the response says how many
// jobs it has changed. It is shorter than the timeouts of most proxies and clients.
const changeTimeout = 20 * time.Second

// changeMany applies a verb to every job that the body selects, and writes how many it has
// changed. more in the response means that the time ran out before the last job.
func (a *API) changeMany(v engine.Verb) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := parseQuery(r); err != nil {
			return err
		}
		if err := api.RequireJSON(r); err != nil {
			return err
		}
		var s selection
		if err := api.ReadJSON(r, job.MaxBody, &s); err != nil {
			return err
		}
		if err := s.check(); err != nil {
			return err
		}
		filter, err := s.filter(gate.CallerFrom(r).View())
		if err != nil {
			return err
		}
		stoppable, cancel := a.contextUntilStop(r)
		defer cancel()
		ctx, cancelTimeout := context.WithTimeout(stoppable, changeTimeout)
		defer cancelTimeout()
		done, err := a.engine.ChangeMany(ctx, v, filter)
		more := err != nil && ctx.Err() != nil && r.Context().Err() == nil
		if err != nil && !more {
			return err
		}
		a.writeJSON(w, http.StatusOK, func(b []byte) []byte { return appendCount(b, done, more) })
		return nil
	}
}

func appendCount(b []byte, done int, more bool) []byte {
	b = strconv.AppendInt(append(b, `{"object":"count","done":`...), int64(done), 10)
	if more {
		b = append(b, `,"more":true`...)
	}
	return append(b, '}')
}
