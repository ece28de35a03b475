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

// changeTime is how long a change of many jobs goes on before it is answered with
// how far it came: less than what proxies and clients wait.
const changeTime = 20 * time.Second

// changeMany does one thing to every job that the body selects, and answers to how
// many; more says that time ran out before the last.
func (f *API) changeMany(v engine.Verb) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := query(r); err != nil {
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
		filter, err := s.filter(gate.Owner(r))
		if err != nil {
			return err
		}
		stoppable, cancel := f.untilStop(r)
		defer cancel()
		ctx, over := context.WithTimeout(stoppable, changeTime)
		defer over()
		done, err := f.engine.ChangeMany(ctx, v, filter)
		more := err != nil && ctx.Err() != nil && r.Context().Err() == nil
		if err != nil && !more {
			return err
		}
		f.answer(w, http.StatusOK, func(b []byte) []byte { return appendCount(b, done, more) })
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
