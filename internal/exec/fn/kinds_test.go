package fn_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/exec/fn"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// wordKinds returns a queue with the kinds "count" and "shout".
func wordKinds(t *testing.T) *fn.Kinds {
	t.Helper()
	shout := func(_ context.Context, t exec.Task, _ exec.Sink) (any, error) {
		word, err := fn.Decode[string](t.Input)
		return strings.ToUpper(word), err
	}
	k := fn.NewKinds("words")
	if err := errors.Join(k.Add("count", fn.Kind{Executor: fn.New[order](work)}), k.Add("shout", fn.Kind{Executor: fn.New[string](shout)})); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCheckJobRefusesUnknownKindAndInvalidInput(t *testing.T) {
	t.Parallel()
	k := wordKinds(t)
	for _, c := range []struct {
		kind, input string
		code        job.Code
		field, want string
	}{
		{kind: "shout", input: `"a"`},
		{kind: "count", input: `{"words":["a"]}`},
		{"shout", `{"words":["a"]}`, job.Invalid, "", "a string"},
		{"count", `{"words":1}`, job.Invalid, "/words", "an array"},
		{"", `"a"`, job.UnknownKind, "/metadata/kind", "count, shout"},
		{"shuot", `"a"`, job.UnknownKind, "/metadata/kind", "count, shout"},
	} {
		err := k.CheckJob(map[string]string{fn.KindMetadata: c.kind}, []byte(c.input))
		if c.code == "" && err == nil {
			continue
		}
		var refusal *job.Error
		if !errors.As(err, &refusal) || refusal.Code != c.code || refusal.Field != c.field || !strings.Contains(refusal.Message, c.want) {
			t.Errorf("%s %s: %+v", c.kind, c.input, err)
		}
	}
}

// A program that has dropped a kind may find a stored job of it.
func TestExecuteFailsJobOfRemovedKind(t *testing.T) {
	t.Parallel()
	task := exectest.Task([]byte(`"a"`))
	task.Job.Metadata = map[string]string{fn.KindMetadata: "whisper"}
	f := job.FaultOf(exectest.Start(t, wordKinds(t), task).Wait())
	if f.Class != job.Final || f.Code != "unknown_kind" || !strings.Contains(f.Message, "count, shout") {
		t.Errorf("%+v", f)
	}
	task.Job.Metadata = map[string]string{fn.KindMetadata: "shout"}
	a := exectest.Start(t, wordKinds(t), task)
	if err := a.Wait(); err != nil || string(a.Sink.Record().Results[0].Body) != `"A"` {
		t.Errorf("%v, %+v", err, a.Sink.Record().Results)
	}
}

func TestAddRefusesInvalidAndExistingKinds(t *testing.T) {
	t.Parallel()
	k := wordKinds(t)
	for _, kind := range []string{"", "a b", "é", "a/b", strings.Repeat("x", 65), "count"} {
		if err := k.Add(kind, fn.Kind{Executor: fn.New[order](work)}); err == nil {
			t.Errorf("the kind %q was added", kind)
		}
	}
	for _, kind := range []string{"image:thumbnail", "Image.v2", "a-b_c", strings.Repeat("x", 64)} {
		if err := k.Add(kind, fn.Kind{Executor: fn.New[order](work)}); err != nil {
			t.Error(err)
		}
	}
	if fn.NewKinds("none").CheckRunnable() == nil || k.CheckRunnable() != nil {
		t.Error("CheckRunnable: only a queue without kinds can run nothing")
	}
}
