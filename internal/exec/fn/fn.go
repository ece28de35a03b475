// Package fn is the executor that calls a Go function of the embedding program. A job's input is
// JSON that must match the function's input type; other inputs are refused before the job is
// stored. The result is the returned value as JSON, or the value itself if it is a [job.Result].
package fn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Func makes one attempt and returns the result. Many goroutines call it at once. It decodes
// the input with [Decode].
type Func func(ctx context.Context, t exec.Task, out exec.Sink) (result any, err error)

// New makes an executor that calls f. Its inputs are those that decode into In.
func New[In any](f Func) exec.Executor { return executor[In]{f} }

type executor[In any] struct{ do Func }

// Kind is "func".
func (executor[In]) Kind() string { return "func" }

// TakesFiles is true: a function opens the files of its job.
func (executor[In]) TakesFiles() bool { return true }

// Check refuses an input that does not decode into In, or has fields that In lacks, or for which
// In's Validate method, if it has one, returns an error.
func (executor[In]) Check(input []byte) error {
	var in In
	if err := decodeStrict(input, &in); err != nil {
		return inputError(err)
	}
	v, ok := any(&in).(interface{ Validate() error })
	if !ok {
		return nil
	}
	if err := v.Validate(); err != nil {
		return job.Errorf(job.Invalid, "the input is not valid: %v", err)
	}
	return nil
}

// Execute calls the function.
func (e executor[In]) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	value, err := e.do(ctx, t, out)
	// A stopped function returns some error of its own; the cause is more specific.
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return withFullMessage(err)
	}
	result, err := encodeResult(value)
	if err != nil {
		return err
	}
	out.Result(result)
	return nil
}

// Decode decodes the input of a job. It ignores fields that In lacks, because an older version
// of the program, whose In had them, may have stored the job. Its error is a final fault.
func Decode[In any](input []byte) (in In, err error) {
	if err := json.Unmarshal(input, &in); err != nil {
		return in, &job.Fault{Code: "invalid_input", Message: inputError(err).Message, Class: job.Final}
	}
	return in, nil
}

// decodeStrict decodes input, which must be exactly one JSON value without unknown fields.
func decodeStrict(input []byte, in any) error {
	dec := json.NewDecoder(bytes.NewReader(input))
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the value")
	}
	return nil
}

// inputError makes the error for an input that does not match. It names the field if
// encoding/json does.
func inputError(err error) *job.Error {
	refusal := job.Errorf(job.Invalid, "the input does not fit what the queue takes: %s", strings.TrimPrefix(err.Error(), "json: "))
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		refusal.Message = fmt.Sprintf("the input has %s where the queue takes %s", withArticle(kind.Value), jsonTypeName(kind.Type))
		if kind.Field != "" {
			refusal.Field = "/" + strings.ReplaceAll(kind.Field, ".", "/")
		}
	}
	return refusal
}

// jsonTypeName returns the JSON name of a Go type, because callers of the HTTP API may not know
// Go.
func jsonTypeName(t reflect.Type) string {
	if t == reflect.TypeFor[[]byte]() {
		return "a string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return jsonTypeName(t.Elem())
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	default:
		return "a " + t.String()
	}
}

func withArticle(word string) string {
	if strings.HasPrefix(word, "a") || strings.HasPrefix(word, "o") { // array, object
		return "an " + word
	}
	return "a " + word
}

// encodeResult makes a result from the function's value.
func encodeResult(value any) (job.Result, error) {
	if r, ok := value.(job.Result); ok {
		return r, nil
	}
	body, err := json.Marshal(value)
	if err != nil {
		return job.Result{}, &job.Fault{Code: "bad_result", Class: job.Final, Err: err,
			Message: "the function returned a value that cannot be written as JSON"}
	}
	return job.Result{ContentType: "application/json", Body: body}, nil
}
