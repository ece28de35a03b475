// Package fn is the executor that calls a function of the program that the server
// lives in. A job's input is JSON that fits the function's own type: what does not,
// is refused before the job is stored. Its result is what the function returned, as
// JSON, or as it is where that is a [job.Result].
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

// Func does one attempt. It is called by many goroutines at once.
type Func[In, Out any] func(ctx context.Context, t exec.Task, out exec.Sink, in In) (Out, error)

// New makes an executor of a function.
func New[In, Out any](f Func[In, Out]) exec.Executor { return executor[In, Out]{f} }

type executor[In, Out any] struct{ do Func[In, Out] }

// Kind is "func".
func (executor[In, Out]) Kind() string { return "func" }

// Check refuses an input that is not an In, has fields that an In has not, or does
// not pass In's own Validate, where it has one.
func (executor[In, Out]) Check(input []byte) error {
	var in In
	if err := strictly(input, &in); err != nil {
		return unfit(err)
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

// Execute calls the function. An input that was stored when In had other fields is
// read as far as it fits.
func (e executor[In, Out]) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	var in In
	if err := json.Unmarshal(t.Input, &in); err != nil {
		return &job.Fault{Code: "invalid_input", Message: unfit(err).Message, Class: job.Final}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	what, err := e.do(ctx, t, out, in)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return whole(err)
	}
	result, err := encode(what)
	if err != nil {
		return err
	}
	out.Result(result)
	return nil
}

// strictly reads one JSON value, and nothing around it.
func strictly(input []byte, in any) error {
	dec := json.NewDecoder(bytes.NewReader(input))
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows after the value")
	}
	return nil
}

// unfit is the refusal of an input, with the field that does not fit where
// encoding/json names it.
func unfit(err error) *job.Error {
	refusal := job.Errorf(job.Invalid, "the input does not fit what the queue takes: %s", strings.TrimPrefix(err.Error(), "json: "))
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		refusal.Message = fmt.Sprintf("the input has %s where the queue takes %s", withArticle(kind.Value), inJSON(kind.Type))
		if kind.Field != "" {
			refusal.Field = "/" + strings.ReplaceAll(kind.Field, ".", "/")
		}
	}
	return refusal
}

// inJSON says what a value of a Go type is in JSON: whoever submits may know no Go.
func inJSON(t reflect.Type) string {
	if t == reflect.TypeFor[[]byte]() {
		return "a string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return inJSON(t.Elem())
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

// encode is the result that a function's value becomes.
func encode(what any) (job.Result, error) {
	if r, ok := what.(job.Result); ok {
		return r, nil
	}
	body, err := json.Marshal(what)
	if err != nil {
		return job.Result{}, &job.Fault{Code: "bad_result", Class: job.Final, Err: err,
			Message: "the function returned what cannot be written as JSON"}
	}
	return job.Result{ContentType: "application/json", Body: body}, nil
}
