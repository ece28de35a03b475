package jobs

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	defaultPage    = 20 // jobs
	maxErrorCode   = 64 // bytes of an error code in a filter
	metadataPrefix = "metadata."
)

// selection selects jobs. It is the body of the calls that change many jobs, and the query
// of a list. A nil field does not restrict; a job must match all other fields.
type selection struct {
	Queue         *string           `json:"queue"`
	Status        *string           `json:"status"`
	Key           *string           `json:"key"` // "" selects the jobs with the empty key
	ErrorCode     *string           `json:"error_code"`
	CreatedBefore *string           `json:"created_before"` // RFC 3339
	CreatedAfter  *string           `json:"created_after"`
	Metadata      map[string]string `json:"metadata"`
	All           bool              `json:"all"` // every job; required where no other field is given
}

// check refuses a change of many jobs that does not say which jobs. An empty body must not
// cancel or delete everything.
func (s *selection) check() error {
	some := s.Queue != nil || s.Status != nil || s.Key != nil || s.ErrorCode != nil ||
		s.CreatedBefore != nil || s.CreatedAfter != nil || len(s.Metadata) > 0
	switch {
	case some && s.All:
		return refuse("/all", "give filters, or all, not both")
	case !some && !s.All:
		return job.Errorf(job.Invalid, "say which jobs: by queue, status, key, error_code, created_before, created_after or metadata; or with \"all\": true")
	}
	return nil
}

// filter converts the selection for the store. Errors point to their field.
func (s *selection) filter(owner job.Owner) (job.Filter, error) {
	f := job.Filter{Owner: owner, Key: s.Key, Metadata: s.Metadata}
	var err error
	if f.Queue, err = parseName("/queue", s.Queue, job.MaxQueueName); err != nil {
		return f, err
	}
	if f.ErrorCode, err = parseName("/error_code", s.ErrorCode, maxErrorCode); err != nil {
		return f, err
	}
	if s.Status != nil {
		var ok bool
		if f.Status, ok = job.ParseState(*s.Status); !ok {
			return f, refuse("/status", "%s is not a status; there are %s", job.Quote(*s.Status), stateNames())
		}
	}
	if s.Key != nil && len(*s.Key) > job.MaxKey {
		return f, refuse("/key", "key has at most %d bytes", job.MaxKey)
	}
	if f.CreatedBefore, err = parseTime("/created_before", s.CreatedBefore); err != nil {
		return f, err
	}
	if f.CreatedAfter, err = parseTime("/created_after", s.CreatedAfter); err != nil {
		return f, err
	}
	return f, checkMetadata(s.Metadata)
}

// stateNames lists all statuses, for an error.
func stateNames() string {
	var names []string
	for _, s := range job.States() {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// parseName checks the length of a name. nil is "".
func parseName(field string, text *string, limit int) (string, error) {
	if text == nil {
		return "", nil
	}
	if *text == "" || len(*text) > limit {
		return "", refuse(field, "%s has 1 to %d bytes", field[1:], limit)
	}
	return *text, nil
}

// parseTime parses a time. nil is the zero time.
func parseTime(field string, text *string) (time.Time, error) {
	if text == nil {
		return time.Time{}, nil
	}
	at, ok := api.ParseTime(*text)
	if ok {
		return at, nil
	}
	hint := ""
	// A + that is not escaped in a query arrives as a space.
	if _, ok := api.ParseTime(strings.Replace(*text, " ", "+", 1)); ok {
		hint = "; in an address + is written %2B"
	}
	return time.Time{}, refuse(field, "%s is not a time of RFC 3339, such as 2030-01-31T09:00:00Z%s", job.Quote(*text), hint)
}

// parseList parses the query of a list: the selection and the page.
func parseList(r *http.Request) (job.Filter, error) {
	q, err := parseQuery(r, "queue", "status", "key", "error_code", "created_before", "created_after", metadataPrefix+"*", "limit", "after")
	if err != nil {
		return job.Filter{}, err
	}
	f, err := parseSelection(q).filter(gate.CallerFrom(r).View())
	if err != nil {
		return f, withoutField(err)
	}
	f.Limit = defaultPage
	if limit := q.Get("limit"); limit != "" {
		n, ok := api.ParseNumber(limit)
		if !ok || n < 1 || n > job.MaxListPage {
			return f, job.Errorf(job.Invalid, "limit is 1 to %d, not %s", job.MaxListPage, job.Quote(limit))
		}
		f.Limit = int(n)
	}
	f.After, err = api.ParsePageCursor(q.Get("after"))
	return f, err
}

// withoutField removes the field of an error, which points into a JSON body. A query has
// none.
func withoutField(err error) error {
	e, ok := errors.AsType[*job.Error](err)
	if !ok {
		return err
	}
	moved := *e
	moved.Field = ""
	return &moved
}

// parseSelection reads a selection from a query. HTML forms send all of their fields, so an
// empty parameter counts as missing; only key may be empty.
func parseSelection(q url.Values) *selection {
	s := &selection{}
	for name, to := range map[string]**string{
		"queue": &s.Queue, "status": &s.Status, "key": &s.Key, "error_code": &s.ErrorCode,
		"created_before": &s.CreatedBefore, "created_after": &s.CreatedAfter,
	} {
		if value := q.Get(name); value != "" || name == "key" && q.Has(name) {
			*to = &value
		}
	}
	for name := range q {
		if pair, ok := strings.CutPrefix(name, metadataPrefix); ok {
			if s.Metadata == nil {
				s.Metadata = map[string]string{}
			}
			s.Metadata[pair] = q.Get(name)
		}
	}
	return s
}
