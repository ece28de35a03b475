package engine

import (
	"log/slog"
	"time"
)

// repeatedError logs an error that repeats: the first one, then one in each repeatedErrorEvery, and
// its end.
type repeatedError struct {
	log  *slog.Logger
	what string

	// owned by the goroutine that reports
	began, logged time.Time // zero while nothing fails
}

const repeatedErrorEvery = 10 * time.Second

// report takes the outcome of a try.
func (r *repeatedError) report(err error) {
	now := time.Now()
	switch {
	case err == nil && !r.began.IsZero():
		r.log.Info("an outage is over", "outage", r.what, "for", now.Sub(r.began).Round(time.Millisecond).String())
		r.began, r.logged = time.Time{}, time.Time{}
	case err != nil && now.Sub(r.logged) >= repeatedErrorEvery:
		if r.began.IsZero() {
			r.began = now
		}
		r.logged = now
		r.log.Error(r.what+", and will be tried again", "error", err)
	}
}
