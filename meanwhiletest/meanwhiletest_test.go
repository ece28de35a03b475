package meanwhiletest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/meanwhiletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// countdown fails twice, then submits the next lower number until 0.
func countdown(s *meanwhile.Server) *meanwhile.Jobs[int, int] {
	var jobs *meanwhile.Jobs[int, int]
	jobs = meanwhile.Handle(s, "countdown", func(ctx context.Context, t *meanwhile.Task, n int) (int, error) {
		if t.Attempt < 3 {
			return 0, errors.New("not yet")
		}
		if n > 0 {
			if _, err := jobs.Submit(ctx, n-1); err != nil {
				return 0, err
			}
		}
		return n, nil
	}, meanwhile.Backoff(time.Hour, time.Hour))
	return jobs
}

func TestRunUntilIdleRunsRetriesAndJobsOfJobs(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	jobs := countdown(s)
	if _, err := jobs.Submit(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	meanwhiletest.RunUntilIdle(t, s)
	found := 0 // newest first, so that it counts up
	for j, err := range s.List(t.Context(), client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if n, err := jobs.Result(t.Context(), j.ID); err != nil || n != found {
			t.Errorf("job %d: %d, %v", found, n, err)
		}
		found++
	}
	if found != 4 {
		t.Errorf("there are %d jobs", found)
	}
}

func TestRunUntilIdleLeavesDelayedAndPausedJobs(t *testing.T) {
	t.Parallel()
	s := meanwhiletest.New(t)
	jobs := countdown(s)
	if _, err := s.Pause(t.Context(), "countdown"); err != nil {
		t.Fatal(err)
	}
	paused, err := jobs.Submit(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	delayed, err := jobs.Submit(t.Context(), 0, meanwhile.Delay(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	meanwhiletest.RunUntilIdle(t, s)
	if _, err := jobs.Result(t.Context(), paused.ID); client.CodeOf(err) != client.CodeNotFinished {
		t.Errorf("the paused job: %v", err)
	}
	if _, err := s.Resume(t.Context(), "countdown"); err != nil {
		t.Fatal(err)
	}
	meanwhiletest.RunUntilIdle(t, s)
	if _, err := jobs.Result(t.Context(), paused.ID); err != nil {
		t.Error(err)
	}
	if _, err := jobs.Result(t.Context(), delayed.ID); client.CodeOf(err) != client.CodeNotFinished {
		t.Errorf("the delayed job: %v", err)
	}
}

// In a bubble the clock jumps, so that nothing has to be waited for.
func TestServerRunsInSynctestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := meanwhiletest.New(t)
		busy := true
		jobs := meanwhile.Handle(s, "print", func(_ context.Context, t *meanwhile.Task, page string) (string, error) {
			if busy {
				busy = false
				return "", meanwhile.RetryAfter(errors.New("the printer is busy"), 10*time.Minute)
			}
			time.Sleep(time.Minute)
			return page, nil
		})
		began := time.Now()
		job, err := jobs.Submit(t.Context(), "one", meanwhile.Delay(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if page, err := jobs.Wait(t.Context(), job.ID); err != nil || page != "one" {
			t.Errorf("%q, %v", page, err)
		}
		if d := time.Since(began).Round(time.Minute); d != 71*time.Minute {
			t.Errorf("it took %s", d)
		}
	})
}

// fakeT is a test that may fail without failing the real one.
type fakeT struct {
	testing.TB
	cleanups []func()

	mu sync.Mutex
	// guarded by mu
	failed bool
	log    strings.Builder
}

func (f *fakeT) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }
func (f *fakeT) Helper()          {}

func (f *fakeT) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *fakeT) Errorf(format string, args ...any) {
	f.Logf(format, args...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
}

func (f *fakeT) Logf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(&f.log, format+"\n", args...)
}

// end runs the cleanups and returns the log.
func (f *fakeT) end() string {
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
	return f.log.String()
}

// A failed test shows why its jobs failed. FailNow within a function fails the attempt.
func TestFailedTestLogsItsJobs(t *testing.T) {
	t.Parallel()
	fake := &fakeT{TB: t}
	s := meanwhiletest.New(fake)
	q := s.AddQueue("images", meanwhile.MaxAttempts(1))
	crop := meanwhile.HandleKind(q, "crop", func(context.Context, *meanwhile.Task, int) (int, error) {
		return 0, meanwhile.WithCode(errors.New("the picture is too small"), "too_small")
	})
	exit := meanwhile.HandleKind(q, "exit", func(context.Context, *meanwhile.Task, int) (int, error) {
		(&testing.T{}).FailNow()
		return 0, nil
	})
	if _, err := crop.Submit(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := exit.Submit(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	meanwhiletest.RunUntilIdle(t, s)
	fake.Errorf("it failed")
	log := fake.end()
	for _, want := range []string{
		"(queue images, kind crop) is failed; attempt 1 of 1 failed: too_small: the picture is too small",
		"(queue images, kind exit) is failed; attempt 1 of 1 failed: panic: ",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// A server that cannot run fails its test.
func TestServerThatCannotRunFailsItsTest(t *testing.T) {
	t.Parallel()
	fake := &fakeT{TB: t}
	s := meanwhiletest.New(fake, func(c *meanwhile.Config) { c.ShutdownGrace = time.Second })
	s.AddQueue("images")
	_, err := s.Queues(t.Context())
	if err == nil {
		t.Error("a server with a queue without kinds runs")
	}
	if log := fake.end(); !fake.failed || !strings.Contains(log, `"images" has no kinds`) {
		t.Errorf("%v, the log is %s", err, log)
	}
}
