package fn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/exec/fn"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// order is the input of the function under test.
type order struct {
	Words  []string          `json:"words"`
	Fail   string            `json:"fail"`
	Ever   bool              `json:"ever"`
	Inside struct{ N int }   `json:"inside"`
	More   map[string]string `json:"more"`
}

func (o *order) Validate() error {
	if o.Fail == "never" {
		return errors.New(`fail: "never" is no reason`)
	}
	return nil
}

func work(ctx context.Context, t exec.Task, out exec.Sink) (any, error) {
	in, err := fn.Decode[order](t.Input)
	if err != nil {
		return nil, err
	}
	for _, word := range in.Words {
		if err := out.Text(word); err != nil {
			return nil, err
		}
	}
	for in.Ever {
		if err := out.Text("."); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	if in.Fail != "" {
		return nil, fn.Final(fn.Coded(in.Fail, errors.New("as was asked for")))
	}
	return map[string]int{"words": len(in.Words)}, nil
}

func TestConformance(t *testing.T) {
	(&exectest.Suite{
		New:        func(*testing.T) exec.Executor { return fn.New[order](work) },
		Good:       []byte(`{"words":["a","b"]}`),
		GoodOutput: "ab",
		Failing:    []byte(`{"fail":"broken"}`),
		Endless:    []byte(`{"ever":true}`),
		Invalid:    [][]byte{[]byte(``), []byte(`{`), []byte(`[]`), []byte(`"x"`), []byte(`{"words":1}`), []byte(`{"mood":1}`), []byte(`{} {}`), []byte(`{"fail":"never"}`)},
	}).Run(t)
}

func TestCheckNamesTheField(t *testing.T) {
	t.Parallel()
	for input, field := range map[string]string{
		`{"words":"x"}`:        "/words",
		`{"inside":{"N":"x"}}`: "/inside/N",
		`7`:                    "",
		`{"mood":1}`:           "",
	} {
		err := fn.New[order](work).Check([]byte(input))
		var refusal *job.Error
		if !errors.As(err, &refusal) || refusal.Code != job.Invalid || refusal.Field != field {
			t.Errorf("%s: %v, field %q, want %q", input, err, refusal.Field, field)
		}
	}
}

// The error names JSON types, because callers of the HTTP API may not know Go.
func TestCheckNamesJSONTypes(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		`{"words":"x"}`:        "the input has a string where the queue takes an array",
		`{"words":{}}`:         "the input has an object where the queue takes an array",
		`{"inside":{"N":"x"}}`: "the input has a string where the queue takes a whole number",
		`[]`:                   "the input has an array where the queue takes an object",
	} {
		if err := fn.New[order](work).Check([]byte(input)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", input, err, want)
		}
	}
}

// An input that was stored before a field was removed is still accepted.
func TestExecuteIgnoresRemovedFields(t *testing.T) {
	t.Parallel()
	a := exectest.Start(t, fn.New[order](work), exectest.Task([]byte(`{"words":["a"],"dropped":1}`)))
	if err := a.Wait(); err != nil || a.Sink.Record().Text() != "a" {
		t.Errorf("%v, wrote %q", err, a.Sink.Record().Text())
	}
	a = exectest.Start(t, fn.New[order](work), exectest.Task([]byte(`{"words":1}`)))
	if f := job.FaultOf(a.Wait()); f.Class != job.Final || f.Code != "invalid_input" {
		t.Errorf("an input that became wrong: %+v", f)
	}
}

func TestExecuteEncodesTheResult(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value       any
		kind, body  string
		code, fault string
	}{
		"a value is JSON":   {value: []int{1}, kind: "application/json", body: "[1]"},
		"nothing is null":   {value: nil, kind: "application/json", body: "null"},
		"raw JSON is kept":  {value: json.RawMessage(`{"a":1}`), kind: "application/json", body: `{"a":1}`},
		"a result is kept":  {value: job.Result{ContentType: "text/plain", Body: []byte("x")}, kind: "text/plain", body: "x"},
		"other values fail": {value: func() {}, code: "bad_result"},
	} {
		a := exectest.Start(t, fn.New[any](func(context.Context, exec.Task, exec.Sink) (any, error) { return c.value, nil }), exectest.Task([]byte("1")))
		err, r := a.Wait(), a.Sink.Record()
		if c.code != "" {
			if f := job.FaultOf(err); f.Code != c.code || f.Class != job.Final || len(r.Results) > 0 {
				t.Errorf("%s: %+v", name, f)
			}
			continue
		}
		if err != nil || len(r.Results) != 1 || r.Results[0].ContentType != c.kind || string(r.Results[0].Body) != c.body {
			t.Errorf("%s: %v, %+v", name, err, r.Results)
		}
	}
}

// The outermost fault counts, and errors.Is still finds the cause.
func TestErrorsSetClassAndCode(t *testing.T) {
	t.Parallel()
	cause := errors.New("the printer is out of paper")
	for name, c := range map[string]struct {
		err  error
		want job.Fault
	}{
		"a plain error":        {cause, job.Fault{Code: "executor_error", Class: job.Retryable}},
		"final":                {fn.Final(cause), job.Fault{Code: "executor_error", Class: job.Final}},
		"to wait":              {fn.RetryAfter(cause, time.Minute), job.Fault{Code: "executor_error", Class: job.Wait, RetryAfter: time.Minute}},
		"a code":               {fn.Coded("no_paper", cause), job.Fault{Code: "no_paper", Class: job.Retryable}},
		"a code, final":        {fn.Final(fn.Coded("no_paper", cause)), job.Fault{Code: "no_paper", Class: job.Final}},
		"final, a code":        {fn.Coded("no_paper", fn.Final(cause)), job.Fault{Code: "no_paper", Class: job.Final}},
		"wrapped":              {fmt.Errorf("page 2: %w", fn.Coded("no_paper", cause)), job.Fault{Code: "no_paper", Class: job.Retryable}},
		"the outermost counts": {fn.Final(fn.RetryAfter(cause, 0)), job.Fault{Code: "executor_error", Class: job.Final}},
	} {
		got := *job.FaultOf(c.err)
		c.want.Message = got.Message
		if got != c.want || !strings.Contains(got.Message, cause.Error()) || !errors.Is(c.err, cause) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	wrapped := fn.New[any](func(context.Context, exec.Task, exec.Sink) (any, error) {
		return nil, fmt.Errorf("page 2: %w", fn.Coded("no_paper", cause))
	})
	if f := job.FaultOf(exectest.Start(t, wrapped, exectest.Task([]byte("1"))).Wait()); f.Code != "no_paper" || !strings.HasPrefix(f.Message, "page 2: ") {
		t.Errorf("the fault of a wrapped error is %+v", f)
	}
	if fn.Final(nil) != nil || fn.RetryAfter(nil, 1) != nil || fn.Coded("x", nil) != nil {
		t.Error("a nil error became an error")
	}
}
