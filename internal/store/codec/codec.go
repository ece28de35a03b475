// Package codec encodes the parts of a job that stores keep as bytes: its policy, its progress, its
// failure, and the fields that most jobs do not have. All stores use it, so that a job can be moved
// from one store to another.
//
// What is written once can be read for ever: a form that was ever stored is never changed, and
// decoding accepts all of them. Decoding damaged bytes returns what can be read, and an error.
package codec

import (
	"encoding/json"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// EncodeProgress encodes a progress; nil for the zero value.
func EncodeProgress(p job.Progress) []byte {
	if p == (job.Progress{}) {
		return nil
	}
	return mustEncode(p)
}

// DecodeProgress decodes a progress. Nil is the zero value.
func DecodeProgress(raw []byte) (job.Progress, error) { return decode[job.Progress](raw) }

// EncodeFailure encodes a failure; nil for nil.
func EncodeFailure(f *job.Failure) []byte {
	if f == nil {
		return nil
	}
	return mustEncode(f)
}

// DecodeFailure decodes a failure. Nil is no failure.
func DecodeFailure(raw []byte) (*job.Failure, error) { return decode[*job.Failure](raw) }

// decode decodes JSON. Nil and damaged bytes give the zero value.
func decode[T any](raw []byte) (v T, err error) {
	if raw == nil {
		return v, nil
	}
	var whole T
	if err = json.Unmarshal(raw, &whole); err == nil {
		v = whole
	}
	return v, err
}

func mustEncode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("codec: " + err.Error())
	}
	return raw
}
