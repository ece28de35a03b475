package jobs

import (
	"fmt"
	"path"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// refuse returns a [job.Invalid] error about one field. field is a JSON pointer.
func refuse(field, format string, args ...any) error {
	return &job.Error{Code: job.Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// check checks the limits of a submission that depend neither on the time nor on its queue.
func (s *submission) check() error {
	switch {
	case s.Queue == "":
		return refuse("/queue", "queue is missing: it names where the job waits")
	case len(s.Queue) > job.MaxQueueName:
		return refuse("/queue", "the name of a queue has at most %d bytes", job.MaxQueueName)
	case s.Input == nil:
		return refuse("/input", "input is missing: it is what the job works on, any JSON value")
	case len(s.Key) > job.MaxKey:
		return refuse("/key", "key has at most %d bytes", job.MaxKey)
	case !within(s.Priority, job.HighestPriority, job.LowestPriority):
		return refuse("/priority", "priority is %d, first, to %d, last", job.HighestPriority, job.LowestPriority)
	case !within(s.MaxAttempts, 1, job.MaxAttempts):
		return refuse("/max_attempts", "max_attempts is 1 to %d", job.MaxAttempts)
	}
	return checkMetadata(s.Metadata)
}

func within(n *int64, low, high int64) bool { return n == nil || low <= *n && *n <= high }

func checkMetadata(pairs map[string]string) error {
	if len(pairs) > job.MaxMetadata {
		return refuse("/metadata", "metadata has at most %d pairs", job.MaxMetadata)
	}
	for name, value := range pairs {
		if name == "" || len(name) > job.MaxMetaKey {
			return refuse("/metadata", "a name in metadata has 1 to %d bytes", job.MaxMetaKey)
		}
		if len(value) > job.MaxMetaValue {
			return refuse("/metadata", "the value of %s in metadata has more than %d bytes", job.Quote(name), job.MaxMetaValue)
		}
	}
	return nil
}

// delay returns how long the job waits before it is ready.
func (s *submission) delay() (time.Duration, error) {
	switch {
	case s.RunAt != nil && s.DelayS != nil:
		return 0, refuse("/run_at", "give run_at or delay_s, not both")
	case s.DelayS != nil:
		return parseSeconds("/delay_s", *s.DelayS, 0, job.MaxDuration)
	case s.RunAt == nil:
		return 0, nil
	}
	at, ok := api.ParseTime(*s.RunAt)
	if !ok {
		return 0, refuse("/run_at", "%s is not a time of RFC 3339, such as 2030-01-31T09:00:00Z", job.Quote(*s.RunAt))
	}
	delay := time.Until(at)
	if delay > job.MaxDuration {
		return 0, refuse("/run_at", "run_at is at most %d days from now", int(job.MaxDuration/(24*time.Hour)))
	}
	return max(delay, 0), nil
}

// parseSeconds converts a duration in seconds, which must be between the bounds.
func parseSeconds(field string, s float64, low, high time.Duration) (time.Duration, error) {
	if s < low.Seconds() || s > high.Seconds() {
		return 0, refuse(field, "%s is %s to %s seconds", path.Base(field), formatSeconds(low), formatSeconds(high))
	}
	return job.Seconds(s), nil
}

// formatSeconds formats a duration in seconds without an exponent, as in a request.
func formatSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
