package job

import (
	"strconv"
	"time"
)

// Ceilings bound what a submit may ask for. They are a queue's, and hold for every API and
// for programs that embed the server. A zero field is no bound.
type Ceilings struct {
	Timeouts    Timeouts      // the longest of each clock; a clock that is off is past every ceiling
	Priority    int           // the best priority, which is the lowest number
	MaxAttempts int           // the most attempts
	Backoff     time.Duration // the shortest backoff
	RetryFor    time.Duration // the longest time in which a job may be asked to wait
	Delay       time.Duration // the longest time until a job is ready
}

// Check refuses a job that is past a ceiling, with [PastLimit] and a Field relative to the
// submit. delay is how long the job waits before it is ready.
func (c *Ceilings) Check(j *Job, delay time.Duration) error {
	ceilings := c.Timeouts.All()
	for i, d := range j.Policy.Timeouts.All() {
		clock := &Clocks[i]
		field := "/timeouts/" + clock.Key()
		if clock.SubmitField != "" {
			field = "/" + clock.SubmitField
		}
		if most := *ceilings[i]; most > 0 && (*d == 0 || *d > most) {
			return pastLimit(j, field, inSeconds(*d), "at most "+inSeconds(most))
		}
	}
	r := &j.Policy.Retry
	for _, d := range []struct {
		field       string
		value, most time.Duration
	}{
		{"/retry/for_s", r.For, c.RetryFor},
		{"/delay_s", delay, c.Delay},
	} {
		if d.most > 0 && d.value > d.most {
			return pastLimit(j, d.field, inSeconds(d.value), "at most "+inSeconds(d.most))
		}
	}
	switch {
	case j.Priority < c.Priority:
		return pastLimit(j, "/priority", strconv.Itoa(j.Priority), "at best "+strconv.Itoa(c.Priority))
	case c.MaxAttempts > 0 && j.MaxAttempts > c.MaxAttempts:
		return pastLimit(j, "/max_attempts", strconv.Itoa(j.MaxAttempts), "at most "+strconv.Itoa(c.MaxAttempts))
	case r.Backoff < c.Backoff:
		return pastLimit(j, "/retry/backoff_s", inSeconds(r.Backoff), "at least "+inSeconds(c.Backoff))
	case 0 < r.BackoffMax && r.BackoffMax < c.Backoff:
		return pastLimit(j, "/retry/backoff_max_s", inSeconds(r.BackoffMax), "at least "+inSeconds(c.Backoff))
	}
	return nil
}

func pastLimit(j *Job, field, value, bound string) error {
	err := Errorf(PastLimit, "%s is %s; the queue %s allows %s", field[1:], value, Quote(j.Queue), bound)
	err.Field = field
	return err
}

// inSeconds writes a duration as in a submit.
func inSeconds(d time.Duration) string {
	if d == 0 {
		return "0 (none)"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}
