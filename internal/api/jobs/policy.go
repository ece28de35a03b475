package jobs

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// timeouts are the clocks that a submitter sets; what is left out is the queue's.
// 0 turns a clock off.
type timeouts struct {
	LeaseS       *float64 `json:"lease_s"`
	RunSoftS     *float64 `json:"run_soft_s"`
	RunHardS     *float64 `json:"run_hard_s"`
	RequestS     *float64 `json:"request_s"`
	FirstOutputS *float64 `json:"first_output_s"`
	IdleOutputS  *float64 `json:"idle_output_s"`
	QueueS       *float64 `json:"queue_s"`
	CancelGraceS *float64 `json:"cancel_grace_s"`
}

// A lease is always on, and no longer than a worker may ask for.
const (
	shortestLease = time.Second
	longestLease  = time.Hour
)

// over puts what was set on top of a queue's clocks.
func (t *timeouts) over(to *job.Timeouts) error {
	if t == nil {
		return nil
	}
	if err := clocks([]clock{
		{"/timeouts/lease_s", t.LeaseS, shortestLease, longestLease, &to.Lease},
		{"/timeouts/run_soft_s", t.RunSoftS, 0, job.MaxDuration, &to.RunSoft},
		{"/timeouts/run_hard_s", t.RunHardS, 0, job.MaxDuration, &to.RunHard},
		{"/timeouts/request_s", t.RequestS, 0, job.MaxDuration, &to.Request},
		{"/timeouts/first_output_s", t.FirstOutputS, 0, job.MaxDuration, &to.FirstOutput},
		{"/timeouts/idle_output_s", t.IdleOutputS, 0, job.MaxDuration, &to.IdleOutput},
		{"/timeouts/queue_s", t.QueueS, 0, job.MaxDuration, &to.Queue},
		{"/timeouts/cancel_grace_s", t.CancelGraceS, time.Millisecond, job.MaxDuration, &to.CancelGrace},
	}); err != nil {
		return err
	}
	if to.RunHard == 0 || to.RunSoft <= to.RunHard {
		return nil
	}
	if t.RunSoftS != nil && *t.RunSoftS > 0 {
		return refuse("/timeouts/run_soft_s", "run_soft_s is no longer than run_hard_s, which is %s", inSeconds(to.RunHard))
	}
	to.RunSoft = to.RunHard // the queue's soft limit means nothing past a shorter hard one
	return nil
}

// abandon sets for how long nobody may ask for the job; 0 is for ever.
func (s *submission) abandon(to *job.Timeouts) error {
	if s.AbandonAfterS == nil {
		return nil
	}
	if *s.AbandonAfterS == 0 {
		to.Abandon = 0
		return nil
	}
	d, err := seconds("/abandon_after_s", *s.AbandonAfterS, job.MinAbandon, job.MaxDuration)
	if err != nil {
		return refuse("/abandon_after_s", "abandon_after_s is %s to %s seconds, or 0 for a job that is never abandoned", inSeconds(job.MinAbandon), inSeconds(job.MaxDuration))
	}
	to.Abandon = d
	return nil
}

// retry is the retry policy that a submitter sets; what is left out is the queue's.
type retry struct {
	BackoffS    *float64 `json:"backoff_s"`
	BackoffMaxS *float64 `json:"backoff_max_s"`
	ForS        *float64 `json:"for_s"`
	OnTimeout   *bool    `json:"on_timeout"`
	AfterOutput *string  `json:"after_output"`
}

// over puts what was set on top of a queue's policy.
func (r *retry) over(to *job.Retry) error {
	if r == nil {
		return nil
	}
	if err := clocks([]clock{
		{"/retry/backoff_s", r.BackoffS, 0, job.MaxDuration, &to.Backoff},
		{"/retry/backoff_max_s", r.BackoffMaxS, 0, job.MaxDuration, &to.BackoffMax},
		{"/retry/for_s", r.ForS, 0, job.MaxDuration, &to.For},
	}); err != nil {
		return err
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

// clock is a duration that may be set, its bounds, and where it goes.
type clock struct {
	field       string
	given       *float64
	least, most time.Duration
	to          *time.Duration
}

func clocks(all []clock) error {
	for _, c := range all {
		if c.given == nil {
			continue
		}
		d, err := seconds(c.field, *c.given, c.least, c.most)
		if err != nil {
			return err
		}
		*c.to = d
	}
	return nil
}
