package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestFiles(t *testing.T) {
	runRules(t, []rule{
		{"the executor is given the job's files with their paths, until it returns", givesFiles},
		{"a job without files fetches none", fetchesNoneWithoutFiles},
		{"the fault of a fetch ends the attempt, and the executor is not called", fetchFails},
		{"a cancel ends a fetch", cancelEndsFetch},
		{"the clocks start again after a fetch", fetchResetsClocks},
	})
}

// fileNames are the files of a job in these tests.
var fileNames = []job.File{{Name: "a", Size: 1}, {Name: "b", ContentType: "image/png"}}

// withFiles gives a delivered job files.
func withFiles(c *job.Claimed) { c.Job.Files = fileNames }

func givesFiles(t *testing.T) {
	var got exec.Task
	released, early := 0, -1
	h := newHarness(t, func(_ context.Context, task exec.Task, _ exec.Sink) error {
		got, early = task, released
		return nil
	}, func(c *Config) {
		c.Files = func(_ context.Context, id job.ID, list []job.File) (paths []string, release func(), err error) {
			for _, f := range list {
				paths = append(paths, "/files/"+id.String()+"/"+f.Name)
			}
			return paths, func() { released++ }, nil
		}
	})
	rec := h.deliver(7, withFiles)
	synctest.Wait()
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
	want(t, "the number of files", len(got.Files), len(fileNames))
	for i, f := range fileNames {
		want(t, "a file", got.Files[i], exec.File{File: f, Path: "/files/" + job.ID{15: 7}.String() + "/" + f.Name})
	}
	want(t, "releases before the end", early, 0)
	want(t, "releases", released, 1)
}

func fetchesNoneWithoutFiles(t *testing.T) {
	h := newHarness(t, returnNil) // without Config.Files
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
}

func fetchFails(t *testing.T) {
	called := false
	h := newHarness(t, func(context.Context, exec.Task, exec.Sink) error {
		called = true
		return nil
	}, func(c *Config) {
		c.Files = func(context.Context, job.ID, []job.File) ([]string, func(), error) {
			return nil, nil, &job.Fault{Code: "away", Message: "The files are away.", Class: job.Wait, Err: errors.New("no answer")}
		}
	})
	rec := h.deliver(1, withFiles)
	synctest.Wait()
	h.wantFault(rec, job.Wait, "away")
	want(t, "the executor was called", called, false)
}

func cancelEndsFetch(t *testing.T) {
	h := newHarness(t, returnNil, func(c *Config) {
		c.Files = func(ctx context.Context, _ job.ID, _ []job.File) ([]string, func(), error) {
			<-ctx.Done()
			return nil, nil, context.Cause(ctx)
		}
	})
	rec := h.deliver(1, withFiles)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	synctest.Wait()
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
}

func fetchResetsClocks(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		sleep(40 * time.Second)
		return out.Text("in time")
	}, func(c *Config) {
		c.Files = func(_ context.Context, _ job.ID, list []job.File) ([]string, func(), error) {
			sleep(40 * time.Second)
			return make([]string, len(list)), func() {}, nil
		}
	})
	rec := h.deliver(1, withFiles, withTimeouts(job.Timeouts{FirstOutput: time.Minute}))
	advance(2 * time.Minute)
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
}
