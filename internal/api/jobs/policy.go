package jobs

import (
	"path"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// timeouts holds the clocks that a submit sets, by [job.Clock.Key]. A clock that is left
// out, or null, is the queue's. 0 turns a clock off.
type timeouts map[string]*float64

// Fields lists the clocks of "timeouts"; see [api.Fields].
func (timeouts) Fields() []string {
	var keys []string
	for i := range job.Clocks {
		if c := &job.Clocks[i]; c.SubmitField == "" {
			keys = append(keys, c.Key())
		}
	}
	return keys
}

// overlayTimeouts overlays the clocks of a submit on its queue's.
func (s *submission) overlayTimeouts(to *job.Timeouts) error {
	for i, field := range to.All() {
		c := &job.Clocks[i]
		given, pointer := s.clock(c)
		if given == nil {
			continue
		}
		d, ok := c.FromSeconds(*given)
		if !ok {
			return refuse(pointer, "%s is %s", path.Base(pointer), c.Bounds())
		}
		*field = d
	}
	if s.Timeouts["first_output_s"] != nil && s.Timeouts["request_s"] == nil {
		to.RaiseRequest()
	}
	if to.RunHard == 0 || to.RunSoft <= to.RunHard {
		return nil
	}
	if soft := s.Timeouts["run_soft_s"]; soft != nil && *soft > 0 {
		return refuse("/timeouts/run_soft_s", "run_soft_s is no longer than run_hard_s, which is %s", formatSeconds(to.RunHard))
	}
	to.RunSoft = to.RunHard // the queue's soft limit has no effect past a shorter hard limit
	return nil
}

// clock returns the value that a submit gives a clock, if any, and its JSON pointer.
func (s *submission) clock(c *job.Clock) (given *float64, pointer string) {
	switch c.SubmitField {
	case "":
		return s.Timeouts[c.Key()], "/timeouts/" + c.Key()
	case "abandon_after_s":
		return s.AbandonAfterS, "/abandon_after_s"
	}
	panic("jobs: a submit has no field " + c.SubmitField)
}

// retry is the retry policy of a submit. A missing field is the queue's.
type retry struct {
	BackoffS    *float64 `json:"backoff_s"`
	BackoffMaxS *float64 `json:"backoff_max_s"`
	ForS        *float64 `json:"for_s"`
	OnTimeout   *bool    `json:"on_timeout"`
	AfterOutput *string  `json:"after_output"`
}

// overlay sets the given fields on top of a queue's policy.
func (r *retry) overlay(to *job.Retry) error {
	if r == nil {
		return nil
	}
	for _, d := range []struct {
		pointer string
		given   *float64
		to      *time.Duration
	}{
		{"/retry/backoff_s", r.BackoffS, &to.Backoff},
		{"/retry/backoff_max_s", r.BackoffMaxS, &to.BackoffMax},
		{"/retry/for_s", r.ForS, &to.For},
	} {
		if d.given == nil {
			continue
		}
		var err error
		if *d.to, err = parseSeconds(d.pointer, *d.given, 0, job.MaxDuration); err != nil {
			return err
		}
	}
	if r.OnTimeout != nil {
		to.OnTimeout = *r.OnTimeout
	}
	if r.AfterOutput != nil {
		to.AfterOutput = job.AfterOutput(*r.AfterOutput)
		if to.AfterOutput != job.RestartAfterOutput && to.AfterOutput != job.FailAfterOutput {
			return refuse("/retry/after_output", "after_output is %q or %q", job.RestartAfterOutput, job.FailAfterOutput)
		}
	}
	return nil
}
