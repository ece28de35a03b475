package job

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Each clock, and everything else that a submit sets, has a ceiling. None is past it.
func TestCeilingsBoundEachField(t *testing.T) {
	t.Parallel()
	fits := func() *Job {
		j := &Job{Queue: "q", Priority: 5, MaxAttempts: 4}
		j.Policy.Retry = Retry{Backoff: 2 * time.Second, BackoffMax: time.Minute, For: time.Hour}
		for _, d := range j.Policy.Timeouts.All() {
			*d = 10 * time.Second
		}
		return j
	}
	type rule struct {
		field   string
		ceiling func(c *Ceilings)
		past    func(j *Job)
		delay   time.Duration
		says    string
	}
	rules := []rule{
		{"/priority", func(c *Ceilings) { c.Priority = 5 }, func(j *Job) { j.Priority = 4 }, 0, "priority is 4; the queue \"q\" allows at best 5"},
		{"/max_attempts", func(c *Ceilings) { c.MaxAttempts = 4 }, func(j *Job) { j.MaxAttempts = 5 }, 0, "at most 4"},
		{"/retry/backoff_s", func(c *Ceilings) { c.Backoff = 2 * time.Second }, func(j *Job) { j.Policy.Retry.Backoff = 0 }, 0, "0 (none); the queue \"q\" allows at least 2 s"},
		{"/retry/backoff_max_s", func(c *Ceilings) { c.Backoff = 2 * time.Second }, func(j *Job) { j.Policy.Retry.BackoffMax = time.Millisecond }, 0, "0.001 s"},
		{"/retry/for_s", func(c *Ceilings) { c.RetryFor = time.Hour }, func(j *Job) { j.Policy.Retry.For++ }, 0, "at most 3600 s"},
		{"/delay_s", func(c *Ceilings) { c.Delay = time.Minute }, func(*Job) {}, time.Minute + 1, "at most 60 s"},
	}
	for i := range Clocks {
		field := "/timeouts/" + Clocks[i].Key()
		if Clocks[i].SubmitField != "" {
			field = "/" + Clocks[i].SubmitField
		}
		for _, past := range []time.Duration{0, 10*time.Second + 1} {
			rules = append(rules, rule{field, func(c *Ceilings) { *c.Timeouts.All()[i] = 10 * time.Second }, func(j *Job) { *j.Policy.Timeouts.All()[i] = past }, 0, "at most 10 s"})
		}
	}
	for _, r := range rules {
		var c Ceilings
		j := fits()
		if err := c.Check(j, time.Minute); err != nil {
			t.Errorf("without ceilings: %v", err)
		}
		r.ceiling(&c)
		if err := c.Check(j, time.Minute); err != nil {
			t.Errorf("%s at its ceiling: %v", r.field, err)
		}
		r.past(j)
		var e *Error
		if err := c.Check(j, r.delay); !errors.As(err, &e) || e.Code != PastLimit || e.Field != r.field || !strings.Contains(e.Message, r.says) {
			t.Errorf("%s past its ceiling: %v", r.field, err)
		}
	}
}
