package codec

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A policy is stored as a version byte and varints, oldest fields first. Durations are in
// milliseconds. A new field goes at the end, and so does a new clock at the end of
// [job.Clocks]. A field that an older row lacks is zero.
//
// The order is: the first eight clocks, retries, the ninth clock, retention, delays, the
// later clocks.
const (
	policyVersion = 1
	firstClocks   = 8
	abandonClock  = 8 // its index
)

// EncodePolicy encodes a policy.
func EncodePolicy(p job.Policy) []byte {
	r := &p.Retry
	buf := append(make([]byte, 0, 48), policyVersion)
	millis := func(d time.Duration) { buf = binary.AppendVarint(buf, int64(d/time.Millisecond)) }
	clocks := p.Timeouts.All()
	for _, d := range clocks[:firstClocks] {
		millis(*d)
	}
	millis(r.Backoff)
	millis(r.BackoffMax)
	millis(r.For)
	buf = append(buf, flag(r.OnTimeout), flag(r.AfterOutput == job.FailAfterOutput))
	millis(*clocks[abandonClock])
	// Leave out fields that most policies do not set. A row is read and written with every
	// move of its job, so a short one saves time.
	later := clocks[abandonClock+1:]
	hasLater := slices.ContainsFunc(later, func(d *time.Duration) bool { return *d != 0 })
	if p.Keep == job.DefaultKeep && len(r.Delays) == 0 && !hasLater {
		return buf
	}
	millis(p.Keep.Failed)
	millis(p.Keep.Others)
	if len(r.Delays) > 0 || hasLater {
		buf = binary.AppendVarint(buf, int64(len(r.Delays)))
	}
	for _, d := range r.Delays {
		millis(d)
	}
	if hasLater {
		for _, d := range later {
			millis(*d)
		}
	}
	return buf
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

var errPolicy = errors.New("store: a stored policy cannot be read")

// DecodePolicy decodes a policy. Together with an error it returns the fields before the damage.
func DecodePolicy(buf []byte) (p job.Policy, err error) {
	if len(buf) == 0 || buf[0] != policyVersion {
		return p, errPolicy
	}
	buf = buf[1:]
	r := &p.Retry
	next := func() (v int64) {
		v, n := binary.Varint(buf)
		if n <= 0 {
			err, n = errPolicy, len(buf)
		}
		buf = buf[n:]
		return v
	}
	millis := func() time.Duration { return time.Duration(next()) * time.Millisecond }
	clocks := p.Timeouts.All()
	for _, d := range clocks[:firstClocks] {
		*d = millis()
	}
	r.Backoff, r.BackoffMax, r.For = millis(), millis(), millis()
	if len(buf) < 2 {
		return p, errPolicy
	}
	r.OnTimeout = buf[0] == 1
	r.AfterOutput = job.RestartAfterOutput
	if buf[1] == 1 {
		r.AfterOutput = job.FailAfterOutput
	}
	if buf = buf[2:]; len(buf) > 0 { // written since jobs can be abandoned
		*clocks[abandonClock] = millis()
	}
	p.Keep = job.DefaultKeep
	if len(buf) > 0 { // not the default retention
		p.Keep.Failed, p.Keep.Others = millis(), millis()
	}
	if len(buf) > 0 { // delays follow, and clocks that came after them
		n := next()
		// Each delay takes at least a byte: a larger number is damage, not a reason to allocate.
		if n < 0 || n > int64(len(buf)) {
			return p, errPolicy
		}
		if n > 0 {
			r.Delays = make([]time.Duration, n)
		}
		for i := range r.Delays {
			r.Delays[i] = millis()
		}
	}
	for i := abandonClock + 1; i < len(clocks) && len(buf) > 0; i++ {
		*clocks[i] = millis()
	}
	return p, err
}
