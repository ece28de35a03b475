package codec

import (
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A policy is decoded as it was encoded, to the millisecond.
func TestPolicyRoundTrips(t *testing.T) {
	t.Parallel()
	roundTrips := func(lease, hard, queue, backoff, retryFor, abandon uint32, delays []uint32, onTimeout, fail bool) bool {
		ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
		p := job.Policy{
			Timeouts: job.Timeouts{Lease: ms(lease), RunHard: ms(hard), Queue: ms(queue), CancelGrace: ms(backoff), Abandon: ms(abandon)},
			Retry:    job.Retry{Backoff: ms(backoff), For: ms(retryFor), OnTimeout: onTimeout, AfterOutput: job.RestartAfterOutput},
		}
		for _, d := range delays {
			p.Retry.Delays = append(p.Retry.Delays, ms(d))
		}
		if fail {
			p.Retry.AfterOutput = job.FailAfterOutput
		}
		got, err := DecodePolicy(EncodePolicy(p))
		return err == nil && reflect.DeepEqual(got, p)
	}
	if err := quick.Check(roundTrips, nil); err != nil {
		t.Error(err)
	}
}

// Policies of older versions lack an abandon timeout or a retention. They are decoded with no
// timeout and the default retention.
func TestDecodePolicyReadsOlderForms(t *testing.T) {
	t.Parallel()
	want := job.Policy{
		Timeouts: job.Timeouts{Lease: time.Second, CancelGrace: time.Minute},
		Retry:    job.Retry{For: time.Hour, OnTimeout: true, AfterOutput: job.FailAfterOutput},
		Keep:     job.DefaultKeep,
	}
	older := []byte{
		policyVersion,
		0xd0, 0x0f, // 1 s
		0, 0, 0, 0, 0, 0,
		0xc0, 0xa9, 0x07, // 1 min
		0, 0,
		0x80, 0xba, 0xb7, 0x03, // 1 h
		1, 1,
	}
	since := EncodePolicy(want) // since jobs can be abandoned
	if got, err := DecodePolicy(since); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a policy without delays is decoded as %+v, %v", got, err)
	}
	if got, err := DecodePolicy(append(older[:len(older):len(older)], 0)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a policy without a retention is decoded as %+v, %v", got, err)
	}
	if got, err := DecodePolicy(older); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("an older policy is decoded as %+v, %v", got, err)
	}
}

// A truncated policy, or one of a later version, is an error.
func TestDecodePolicyRefusesDamage(t *testing.T) {
	t.Parallel()
	whole := EncodePolicy(job.Policy{Timeouts: job.Timeouts{Lease: time.Hour}})
	older := len(whole) - 3 // without the later fields
	for n := range len(whole) {
		if n == older || n == older+1 {
			continue // an older version wrote this length
		}
		if _, err := DecodePolicy(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes were decoded as a policy", n, len(whole))
		}
	}
	if _, err := DecodePolicy(append(whole[:older:older], 0x80)); err == nil {
		t.Error("a policy with an incomplete number at its end was decoded")
	}
	delayed := EncodePolicy(job.Policy{Retry: job.Retry{Delays: []time.Duration{time.Hour, time.Hour, time.Hour}}})
	for n := len(whole) + 1; n < len(delayed); n++ {
		if _, err := DecodePolicy(delayed[:n]); err == nil {
			t.Errorf("%d of %d bytes were decoded as a policy with delays", n, len(delayed))
		}
	}
	if _, err := DecodePolicy(append([]byte{policyVersion + 1}, whole[1:]...)); err == nil {
		t.Error("a policy of another version was decoded")
	}
}
