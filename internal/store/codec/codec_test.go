package codec

import (
	"reflect"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The fields that most jobs do not have are decoded as they were encoded; a job without any is nil.
func TestExtraRoundTrips(t *testing.T) {
	t.Parallel()
	for _, want := range []job.Job{
		{},
		{Refs: []string{"one"}},
		{Refs: []string{"one", "two"}},
		{Refs: []string{""}},
		{Tally: "t", Resource: "gpt", Trace: "00-1"},
		{Metadata: map[string]string{"a": "b"}, Files: []job.File{{Name: "f", Size: 3}}},
	} {
		raw, err := EncodeExtra(&want)
		if err != nil || (raw == nil) != reflect.DeepEqual(want, job.Job{}) {
			t.Fatalf("%+v is encoded as %q, %v", want, raw, err)
		}
		got := job.Job{}
		if err := DecodeExtra(raw, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is decoded as %+v, %v", raw, got, err)
		}
		if tally := DecodeTally(raw); tally != want.Tally {
			t.Errorf("%q has the tally %q", raw, tally)
		}
	}
}

// Of damaged fields those before the damage are decoded.
func TestDecodeExtraKeepsWhatIsBeforeDamage(t *testing.T) {
	t.Parallel()
	raw, err := EncodeExtra(&job.Job{Refs: []string{"r"}, Tally: "t", Metadata: map[string]string{"a": "b"}, Trace: "00-1"})
	if err != nil {
		t.Fatal(err)
	}
	got := job.Job{}
	err = DecodeExtra(raw[:len(raw)-4], &got)
	if want := (job.Job{Refs: []string{"r"}, Tally: "t", Metadata: map[string]string{"a": "b"}}); err == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q without its end is decoded as %+v, %v", raw, got, err)
	}
}

func TestProgressAndFailureRoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []job.Progress{{}, {Percent: 12.5, Status: "half"}} {
		if got, err := DecodeProgress(EncodeProgress(want)); err != nil || got != want {
			t.Errorf("%+v is decoded as %+v, %v", want, got, err)
		}
	}
	for _, want := range []*job.Failure{nil, {Code: "c", Message: "m", Attempt: 2}} {
		if got, err := DecodeFailure(EncodeFailure(want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v is decoded as %+v, %v", want, got, err)
		}
	}
	if f, err := DecodeFailure([]byte(`{"code":"c","message":`)); err == nil || f != nil {
		t.Errorf("a truncated failure is decoded as %+v, %v", f, err)
	}
	if p, err := DecodeProgress([]byte(`{"percent":5,"status":`)); err == nil || p != (job.Progress{}) {
		t.Errorf("a truncated progress is decoded as %+v, %v", p, err)
	}
}
