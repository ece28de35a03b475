package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// readOptional decodes a body that may be empty.
func readOptional(r *http.Request, v any) error {
	if _, err := api.ParseQuery(r); err != nil {
		return err
	}
	body, err := api.ReadBody(r, maxBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return api.DecodeJSON(body, v)
}

// expiry is when a key expires: after a time or at one. The zero value is never.
type expiry struct {
	after time.Duration
	at    time.Time
}

// parseExpiry reads the two fields of an expiry, of which a request has one at most.
func parseExpiry(seconds *float64, at string) (e expiry, err error) {
	switch {
	case seconds != nil && at != "":
		return e, refuse(job.Invalid, "/expires_at", "give expires_s or expires_at, not both")
	case seconds != nil:
		if !(*seconds >= 1 && *seconds <= access.MaxLifetime.Seconds()) {
			return e, refuse(job.Invalid, "/expires_s", "a key lives for 1 to %d seconds, or without expires_s for ever", int64(access.MaxLifetime.Seconds()))
		}
		e.after = time.Duration(*seconds * float64(time.Second))
	case at != "":
		var ok bool
		if e.at, ok = api.ParseTime(at); !ok {
			return e, refuse(job.Invalid, "/expires_at", "%s is no time as of RFC 3339, such as 2030-01-31T09:00:00Z", job.Quote(at))
		}
	}
	return e, nil
}

// from returns the time of the expiry for a key that is made now; zero for never.
func (e expiry) from(now time.Time) time.Time {
	if e.after > 0 {
		return now.Add(e.after)
	}
	return e.at
}

// parseSpan reads a time in seconds, from 0 to most.
func parseSpan(field string, seconds *float64, byDefault, most time.Duration) (time.Duration, error) {
	if seconds == nil {
		return byDefault, nil
	}
	if !(*seconds >= 0 && *seconds <= most.Seconds()) {
		return 0, refuse(job.Invalid, field, "this must be from 0 to %d seconds", int64(most.Seconds()))
	}
	return time.Duration(*seconds * float64(time.Second)), nil
}

func refuse(code job.Code, field, format string, args ...any) error {
	return &job.Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// atField adds the field to an error that has none.
func atField(err error, field string) error {
	var e *job.Error
	if !errors.As(err, &e) || e.Field != "" {
		return err
	}
	at := *e
	at.Field = field
	return &at
}
