package sqlite

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A policy is stored as a version byte and varints: clocks in milliseconds, then retries. A new
// field goes to the end. Fields that an older row lacks are zero.
const policyVersion = 1

func encodePolicy(p job.Policy) []byte {
	t, r := p.Timeouts, p.Retry
	buf := append(make([]byte, 0, 48), policyVersion)
	for _, d := range [...]time.Duration{
		t.Lease, t.RunSoft, t.RunHard, t.Request, t.FirstOutput, t.IdleOutput, t.Queue, t.CancelGrace,
		r.Backoff, r.BackoffMax, r.For,
	} {
		buf = binary.AppendVarint(buf, int64(d/time.Millisecond))
	}
	buf = append(buf, flag(r.OnTimeout), flag(r.AfterOutput == job.FailAfterOutput))
	buf = binary.AppendVarint(buf, int64(t.Abandon/time.Millisecond))
	if p.Keep == job.DefaultKeep && len(r.Delays) == 0 {
		return buf // the usual case: each move of a job reads and writes its row
	}
	for _, d := range [...]time.Duration{p.Keep.Failed, p.Keep.Others} {
		buf = binary.AppendVarint(buf, int64(d/time.Millisecond))
	}
	if len(r.Delays) > 0 { // few jobs have delays
		buf = binary.AppendVarint(buf, int64(len(r.Delays)))
	}
	for _, d := range r.Delays {
		buf = binary.AppendVarint(buf, int64(d/time.Millisecond))
	}
	return buf
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

var errPolicy = errors.New("sqlite: a stored policy cannot be read")

func decodePolicy(buf []byte) (p job.Policy, err error) {
	if len(buf) == 0 || buf[0] != policyVersion {
		return p, errPolicy
	}
	buf = buf[1:]
	t, r := &p.Timeouts, &p.Retry
	next := func() (v int64) {
		v, n := binary.Varint(buf)
		if n <= 0 {
			err, n = errPolicy, len(buf)
		}
		buf = buf[n:]
		return v
	}
	for _, d := range [...]*time.Duration{
		&t.Lease, &t.RunSoft, &t.RunHard, &t.Request, &t.FirstOutput, &t.IdleOutput, &t.Queue, &t.CancelGrace,
		&r.Backoff, &r.BackoffMax, &r.For,
	} {
		*d = time.Duration(next()) * time.Millisecond
	}
	if len(buf) < 2 {
		return p, errPolicy
	}
	r.OnTimeout = buf[0] == 1
	r.AfterOutput = job.RestartAfterOutput
	if buf[1] == 1 {
		r.AfterOutput = job.FailAfterOutput
	}
	if buf = buf[2:]; len(buf) > 0 { // written since jobs can be abandoned
		t.Abandon = time.Duration(next()) * time.Millisecond
	}
	p.Keep = job.DefaultKeep
	if len(buf) > 0 { // not the default retention
		p.Keep.Failed = time.Duration(next()) * time.Millisecond
		p.Keep.Others = time.Duration(next()) * time.Millisecond
	}
	if len(buf) > 0 { // delays follow
		n := next()
		if n < 0 || n > int64(len(buf)) {
			return p, errPolicy
		}
		r.Delays = make([]time.Duration, n)
		for i := range r.Delays {
			r.Delays[i] = time.Duration(next()) * time.Millisecond
		}
	}
	return p, err
}
