package sim

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestConformance(t *testing.T) {
	suite := exectest.Suite{
		New:        func(*testing.T) exec.Executor { return Executor{} },
		Good:       []byte(`{"tokens": 4}`),
		GoodOutput: "The work takes its",
		Failing:    []byte(`{"tokens": 2, "fail_attempts": 1}`),
		Endless:    []byte(`{"tokens": 1000000, "tokens_per_s": 20}`),
		Invalid:    [][]byte{nil, []byte("soon"), []byte("[]"), []byte(`{"ticks": 1}`), []byte(`{"tokens": -1}`)},
	}
	suite.Run(t)
}

func TestCheckNamesTheField(t *testing.T) {
	t.Parallel()
	for input, field := range map[string]string{
		``:                             "",
		`{`:                            "",
		`null`:                         "",
		`"echo"`:                       "",
		`[{}]`:                         "",
		`{} {}`:                        "",
		"{\"echo\": \"\xff\"}":         "/echo",
		`{"sleep": 1}`:                 "/sleep",
		`{"Tokens": 1}`:                "/Tokens",
		`{"a/b~c": 1}`:                 "/a~1b~0c",
		`{"echo": 1, "echo": 2}`:       "/echo",
		`{"echo": 1, "\u0065cho": 2}`:  "/echo",
		`{"duration_ms": -1}`:          "/duration_ms",
		`{"duration_ms": "1"}`:         "/duration_ms",
		`{"duration_ms": null}`:        "/duration_ms",
		`{"duration_ms": 1e300}`:       "/duration_ms",
		`{"duration_ms": 31622400001}`: "/duration_ms",
		`{"tokens": 1.5}`:              "/tokens",
		`{"tokens": 1000001}`:          "/tokens",
		`{"tokens": [1]}`:              "/tokens",
		`{"tokens_per_s": true}`:       "/tokens_per_s",
		`{"tokens_per_s": 1e999}`:      "/tokens_per_s",
		`{"fail_attempts": -2}`:        "/fail_attempts",
		`{"fail_code": 7}`:             "/fail_code",
		`{"fail_code": "no spaces"}`:   "/fail_code",
		`{"fail_code": "soon:x"}`:      "/fail_code",
		`{"fail_code": "final:"}`:      "/fail_code",
		`{"ignore_cancel": 1}`:         "/ignore_cancel",
		`{"ignore_cancel": null}`:      "/ignore_cancel",
		`{"echo": 1, "tokens": NaN}`:   "/tokens",
	} {
		var refusal *job.Error
		if err := (Executor{}).Check([]byte(input)); !errors.As(err, &refusal) || refusal.Code != job.Invalid {
			t.Errorf("Check(%s) = %v, want it refused", input, err)
		} else if refusal.Field != field {
			t.Errorf("Check(%s) names the field %q, want %q (%s)", input, refusal.Field, field, refusal.Message)
		}
	}
}

func TestResultHasRequestedFields(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		`{}`: `{}`,
		` { "duration_ms" : 0 , "echo" : {"a": [1, "}\"", {}]} } `: `{"echo":{"a": [1, "}\"", {}]}}`,
		`{"echo":null}`:                             `{"echo":null}`,
		`{"tokens":2,"echo":"x"}`:                   `{"echo":"x","text":"The work"}`,
		`{"fail_attempts":0,"fail_code":"final:x"}`: `{}`,
	} {
		a := exectest.Start(t, Executor{}, exectest.Task([]byte(input)))
		if err := a.Wait(); err != nil {
			t.Errorf("%s: %v", input, err)
			continue
		}
		if got := string(a.Sink.Record().Results[0].Body); got != want {
			t.Errorf("the result of %s is %s, want %s", input, got, want)
		}
	}
}

func TestFirstAttemptsFail(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]job.Fault{
		"":              {Code: "sim_failure", Class: job.Retryable},
		"out_of_paper":  {Code: "out_of_paper", Class: job.Retryable},
		"final:broken":  {Code: "broken", Class: job.Final},
		"wait:busy":     {Code: "busy", Class: job.Wait},
		"timeout:later": {Code: "later", Class: job.Timeout},
	} {
		task := exectest.Task([]byte(`{"fail_attempts": 2, "fail_code": "` + code + `"}`))
		task.Job.Attempt = 2
		f := job.FaultOf(exectest.Start(t, Executor{}, task).Wait())
		if f.Code != want.Code || f.Class != want.Class {
			t.Errorf("fail_code %q failed with %q, class %d", code, f.Code, f.Class)
		}
		task.Job.Attempt = 3
		a := exectest.Start(t, Executor{}, task)
		if err := a.Wait(); err != nil {
			t.Errorf("the attempt after the failing ones failed: %v", err)
		}
		if got := string(a.Sink.Record().Results[0].Body); got != `{"attempt":3}` {
			t.Errorf("its result is %s", got)
		}
	}
}

func TestAttemptTakesRequestedTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := exectest.Start(t, Executor{}, exectest.Task([]byte(`{"duration_ms": 2000, "tokens": 5, "tokens_per_s": 2}`)))
		a.Sink.WaitUntil(exectest.HasText)
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("the first word came after %v, want 2s", waited)
		}
		if err := a.Wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("it took %v, want 4s", took)
		}
		reports := a.Sink.Record().Progress()
		if last := reports[len(reports)-1]; last.Percent != 100 {
			t.Errorf("the last report is %v percent", last.Percent)
		}
		for i := range reports[1:] {
			if reports[i+1].Percent <= reports[i].Percent {
				t.Errorf("progress did not increase: %v", reports)
				break
			}
		}
	})
}

func TestIgnoreCancelRunsOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := exectest.Start(t, Executor{}, exectest.Task([]byte(`{"duration_ms": 60000, "ignore_cancel": true}`)))
		synctest.Wait()
		a.Stop(exec.ErrCancelled)
		if err := a.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it went on for %v, want 1m", took)
		}
	})
}

func TestZeroDurationWritesNoOutput(t *testing.T) {
	t.Parallel()
	a := exectest.Start(t, Executor{}, exectest.Task([]byte(`{"duration_ms":0,"echo":"x"}`)))
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	if entries := a.Sink.Record().Entries; len(entries) != 0 {
		t.Errorf("it wrote %v", entries)
	}
}

// FuzzParse checks that the standard library reads every accepted input with the same result.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"echo":[1,{"a":"\"]}"}],"tokens":3}`, ` {"\u0065cho" : "\\" , "duration_ms":1e3}`, `{"fail_code":"wait:x","ignore_cancel":true}`, `{"":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p, refusal := parseInput(input)
		if refusal != nil {
			return
		}
		var want struct {
			Tokens float64
			Echo   json.RawMessage
		}
		if err := json.Unmarshal(input, &want); err != nil {
			t.Fatalf("parseInput accepted %q: %v", input, err)
		}
		if p.tokens != int(want.Tokens) || string(p.echo) != string(want.Echo) {
			t.Errorf("parseInput read %q as %+v", input, p)
		}
	})
}

func BenchmarkEcho(b *testing.B) {
	task := exec.Task{Job: job.Job{Attempt: 1}, Input: []byte(`{"duration_ms":0,"echo":"` + strings.Repeat("x", 500) + `"}`)}
	var e Executor
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Check(task.Input); err != nil {
			b.Fatal(err)
		}
		if err := e.Execute(context.Background(), task, resultSink{}); err != nil {
			b.Fatal(err)
		}
	}
}

// resultSink is a sink that accepts only a result.
type resultSink struct{ exec.Sink }

func (resultSink) Result(job.Result) {}

// docs/inputs.md describes every field, and no other.
func TestDocsDescribeEveryField(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/inputs.md")
	if err != nil {
		t.Fatal(err)
	}
	section, _, _ := strings.Cut(string(page), "## `chat`")
	var described []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		described = append(described, row[1])
	}
	if !slices.Equal(described, fieldNames) {
		t.Errorf("the page describes %q, and the fields are %q", described, fieldNames)
	}
}
