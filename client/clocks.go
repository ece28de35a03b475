package client

import (
	"encoding/json"
	"time"
)

// Timeouts sets clocks of a job. A zero field leaves the queue's setting, and [Off]
// turns the clock off.
type Timeouts struct {
	Lease       time.Duration // a worker that is silent for this long loses its job: 1 s to 1 h, never off
	RunSoft     time.Duration // an attempt that has run this long is asked to stop
	RunHard     time.Duration // an attempt that has run this long is cut off
	Request     time.Duration // limits the wait for an upstream's headers, and for an unstreamed answer
	FirstOutput time.Duration // the longest time from the start of an attempt to its first piece of output
	IdleOutput  time.Duration // the longest time between two pieces of output
	Queue       time.Duration // a job that has waited this long for its first attempt expires
	CancelGrace time.Duration // work that still runs this long after a cancel loses its slot: 1 ms or more, never off
}

// clock is a field of [Timeouts] and its name. The name in JSON has the suffix "_s".
type clock struct {
	name  string
	value *time.Duration
}

func (t *Timeouts) clocks() []clock {
	return []clock{
		{"lease", &t.Lease},
		{"run_soft", &t.RunSoft},
		{"run_hard", &t.RunHard},
		{"request", &t.Request},
		{"first_output", &t.FirstOutput},
		{"idle_output", &t.IdleOutput},
		{"queue", &t.Queue},
		{"cancel_grace", &t.CancelGrace},
	}
}

// Set sets the clock of that name, such as "run_hard" for the field RunHard. For an unknown
// name it returns false and changes nothing.
func (t *Timeouts) Set(name string, d time.Duration) bool {
	for _, c := range t.clocks() {
		if c.name == name {
			*c.value = d
			return true
		}
	}
	return false
}

// wireTimeouts is the JSON form of Timeouts: an object with the clocks that are set.
type wireTimeouts Timeouts

// MarshalJSON writes the clocks in seconds.
func (t wireTimeouts) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for _, c := range (*Timeouts)(&t).clocks() {
		if *c.value == 0 {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		value, err := json.Marshal(seconds(*c.value))
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, '"'), c.name...), `_s":`...)
		b = append(b, value...)
	}
	return append(b, '}'), nil
}
