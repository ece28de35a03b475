package llm

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

// limitedServer is a model server with a rate limit. Its answers take a while.
type limitedServer struct {
	limit   func(now time.Time) (ok bool, wait time.Duration)
	refusal func(h http.Header, wait time.Duration) // says how long to wait
	headers func(h http.Header, now time.Time)      // of accepted calls; may be nil
	takes   time.Duration

	mu sync.Mutex
	// guarded by mu
	refused, accepted int
	times             []time.Time // of all calls
}

func (s *limitedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	now := time.Now()
	s.times = append(s.times, now)
	ok, wait := s.limit(now)
	if ok {
		s.accepted++
		if s.headers != nil {
			s.headers(w.Header(), now)
		}
	} else {
		s.refused++
	}
	s.mu.Unlock()
	if !ok {
		s.refusal(w.Header(), wait)
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	time.Sleep(s.takes)
	streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
}

// perWindow allows n calls in each window, which begins with its first call.
func perWindow(n int, window time.Duration) func(time.Time) (bool, time.Duration) {
	var began time.Time
	used := 0
	return func(now time.Time) (bool, time.Duration) {
		if now.Sub(began) >= window {
			began, used = now, 0
		}
		used++
		return used <= n, began.Add(window).Sub(now)
	}
}

// bucket allows a burst, and then a call each interval.
func bucket(burst int, interval time.Duration) func(time.Time) (bool, time.Duration) {
	var full time.Time // when the bucket is full again
	return func(now time.Time) (bool, time.Duration) {
		full = later(full, now)
		if ahead := full.Sub(now) - time.Duration(burst-1)*interval; ahead > 0 {
			return false, ahead
		}
		full = full.Add(interval)
		return true, 0
	}
}

func inRetryAfter(h http.Header, wait time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(wait.Seconds()+1)))
}

// runLine runs jobs as the engine does: as many at once as the executor's limit allows, at most
// slots, each until it ends. It returns how long that took.
func runLine(t *testing.T, e *Executor, jobs, slots int) (took time.Duration, failed int) {
	t.Helper()
	room := make(chan struct{}, 1)
	ask := func() {
		select {
		case room <- struct{}{}:
		default:
		}
	}
	e.Resources().OnRoom(ask)
	began := time.Now()
	type waiting struct {
		exec.Task
		readyAt time.Time
	}
	var line []waiting
	for range jobs {
		task := exectest.Task([]byte(hello))
		task.Job.Resource, task.Job.StartedAt = e.Resource(task.Input), began
		task.Job.Policy.Retry = job.Retry{Backoff: 2 * time.Second, BackoffMax: time.Minute, For: 2 * time.Minute}
		line = append(line, waiting{Task: task})
	}
	ended := make(chan waiting, jobs)
	active, left := 0, jobs
	for left > 0 {
		now := time.Now()
		for i := 0; i < len(line) && active < slots && active < e.Resources().Limits()["m"]; {
			if w := line[i]; !now.Before(w.readyAt) {
				line = append(line[:i:i], line[i+1:]...)
				active++
				go func() {
					sink := exectest.NewRecorder(t)
					err := e.Execute(context.Background(), w.Task, sink)
					sink.Close()
					done := waiting{Task: w.Task}
					switch {
					case err == nil:
						done.readyAt = time.Time{}
						done.Job.State = job.Succeeded
					case err == exec.ErrNoRoom:
						done.readyAt = time.Now()
					default:
						v := w.Job.DecideRetry(job.FaultOf(err), false, time.Now(), 0.5)
						done.readyAt = time.Now().Add(v.Delay)
						if !v.Retry {
							done.Job.State = job.Failed
						} else if !v.Refund {
							done.Job.Attempt++
						}
					}
					ended <- done
				}()
				continue
			}
			i++
		}
		select {
		case w := <-ended:
			active--
			switch w.Job.State {
			case job.Succeeded:
				left--
			case job.Failed:
				left--
				failed++
			default:
				line = append(line, w)
			}
		case <-room:
		case <-time.After(time.Second):
		}
	}
	return time.Since(began), failed
}

// A line of jobs moves at the pace of its server, whatever kind of limit that has and however it
// says so: a handful of calls is refused, no job fails, and little time is lost.
func TestLineMovesAtThePaceOfTheServer(t *testing.T) {
	t.Parallel()
	const perMinute = 30
	silent := func(http.Header, time.Duration) {}
	for name, c := range map[string]struct {
		server  *limitedServer
		slots   int
		refused int           // at most
		within  time.Duration // at most
	}{
		"a window, with Retry-After":        {&limitedServer{limit: perWindow(perMinute, time.Minute), refusal: inRetryAfter}, 32, 20, 5 * time.Minute},
		"a window, and many slots":          {&limitedServer{limit: perWindow(perMinute, time.Minute), refusal: inRetryAfter}, 120, 40, 5 * time.Minute},
		"a window, with a short wait":       {&limitedServer{limit: perWindow(perMinute, time.Minute), refusal: func(h http.Header, _ time.Duration) { h.Set("Retry-After", "5") }}, 32, 50, 6 * time.Minute},
		"a window, and no word":             {&limitedServer{limit: perWindow(perMinute, time.Minute), refusal: silent}, 32, 50, 7 * time.Minute},
		"a bucket, with Retry-After":        {&limitedServer{limit: bucket(5, 2*time.Second), refusal: inRetryAfter}, 32, 50, 6 * time.Minute},
		"a call each two seconds":           {&limitedServer{limit: bucket(1, 2*time.Second), refusal: inRetryAfter}, 32, 50, 6 * time.Minute},
		"a bucket of a slow model":          {&limitedServer{limit: bucket(5, 2*time.Second), refusal: inRetryAfter, takes: 20 * time.Second}, 32, 50, 6 * time.Minute},
		"a window, and headers that count":  {countingServer(perMinute), 32, 16, 5 * time.Minute},
		"a window of seconds, and no limit": {&limitedServer{limit: perWindow(1000, time.Second), refusal: inRetryAfter}, 32, 0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if c.server.takes == 0 {
					c.server.takes = 50 * time.Millisecond
				}
				e := newInMemory(t, c.server)
				took, failed := runLine(t, e, 120, c.slots)
				t.Logf("%d refused, %d failed, took %v, %+v", c.server.refused, failed, took, e.Gates()[0])
				if failed > 0 || c.server.refused > c.refused || took > c.within {
					t.Errorf("of 120 jobs %d failed; %d calls were refused, and it took %v", failed, c.server.refused, took)
				}
				e.Close()
			})
		})
	}
}

// countingServer has a window, and says in headers how many calls are left.
func countingServer(perMinute int) *limitedServer {
	var began time.Time
	used := 0
	return &limitedServer{
		limit: func(now time.Time) (bool, time.Duration) {
			if now.Sub(began) >= time.Minute {
				began, used = now, 0
			}
			used++
			return used <= perMinute, began.Add(time.Minute).Sub(now)
		},
		refusal: inRetryAfter,
		headers: func(h http.Header, now time.Time) {
			h.Set("x-ratelimit-limit-requests", strconv.Itoa(perMinute))
			h.Set("x-ratelimit-remaining-requests", strconv.Itoa(max(perMinute-used, 0)))
			h.Set("x-ratelimit-reset-requests", fmt.Sprintf("%.3fs", began.Add(time.Minute).Sub(now).Seconds()))
		},
	}
}

// A server that refuses everybody is asked a few times, not 200 times in the first second.
func TestRefusalHoldsTheWholeLine(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			calls, began := 0, time.Now()
			var mu sync.Mutex
			e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if time.Since(began) < 5*time.Second {
					calls++
					w.Header().Set("Retry-After", "5")
					w.WriteHeader(status)
					return
				}
				streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
			}))
			took, failed := runLine(t, e, 200, 32)
			if calls > firstWindow || failed > 0 || took > time.Minute {
				t.Errorf("%d: %d calls in the first five seconds, %d jobs failed, took %v", status, calls, failed, took)
			}
			e.Close()
		})
	}
}

// The log says that jobs wait because a server asks to, and not for each refusal.
func TestWaitThatServerAsksForIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		e := mustNew(t, Config{
			Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
			Transport: loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "60")
				w.WriteHeader(http.StatusTooManyRequests)
			})),
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		for range 12 {
			_ = runAttempt(t, e)
			time.Sleep(2 * time.Minute)
		}
		if n := strings.Count(log.String(), "asks to wait, and its jobs wait in line\" model=m last="); n != 3 {
			t.Errorf("of 12 refusals within 22 minutes %d are logged:\n%s", n, &log)
		}
	})
}

// A job that a server refuses again and again while it accepts others fails in the end.
func TestJobThatIsRefusedForeverFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > 200 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
		}))
		task := exectest.Task(fmt.Appendf(nil, `{"messages":[{"role":"user","content":"%0300d"}]}`, 1))
		for n := 1; ; n++ {
			run(t, e, hello)
			f := faultOf(t, exectest.Start(t, e, task).Wait())
			if f.Class == job.Final {
				if n != maxRefusals {
					t.Errorf("it failed after %d refusals: %v", n, f)
				}
				return
			}
			if f.ServedAgo == 0 || n > maxRefusals {
				t.Fatalf("refusal %d: %+v", n, f)
			}
		}
	})
}

// A job that asks for too much itself holds up the others a few times, and not until it fails.
func TestJobThatIsTooLargeHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > 200 {
				w.Header().Set("Retry-After", "60")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
		}))
		task := exectest.Task(fmt.Appendf(nil, `{"messages":[{"role":"user","content":"%0300d"}]}`, 1))
		began := time.Now()
		for {
			run(t, e, hello)
			if faultOf(t, exectest.Start(t, e, task).Wait()).Class == job.Final {
				break
			}
		}
		if took := time.Since(began); took > 3*maxLessons*time.Minute {
			t.Errorf("the others waited for %v", took)
		}
	})
}

// A job does not fail because others take what the server gives: refusals in a row are about all
// of them.
func TestBusyServerFailsNoJob(t *testing.T) {
	t.Parallel()
	g, now := newGate(), time.Now()
	unlucky, other := job.NewID(), job.NewID()
	call := func(id job.ID, ok bool) (tooOften bool) {
		now = now.Add(2 * time.Hour) // any pace has passed
		p, _, _ := g.begin(id, now)
		if p == nil {
			t.Fatal("the gate is closed")
		}
		defer p.end()
		if !ok {
			return p.refused(time.Second, now)
		}
		p.accepted(nil, true, now)
		return false
	}
	for n := range 10 * maxRefusals {
		call(other, n%3 == 0)
		call(other, false)
		if call(unlucky, false) {
			t.Fatalf("the job failed at round %d", n)
		}
	}
}

// The rate is what a server takes, and not what it was asked for in quiet hours.
func TestQuietHoursAreNoRate(t *testing.T) {
	t.Parallel()
	g, now := newGate(), time.Now()
	accept := func() {
		p, _, _ := g.begin(job.NewID(), now)
		p.accepted(nil, true, now)
		p.end()
	}
	for range 300 {
		accept()
		now = now.Add(time.Minute)
	}
	for range 30 {
		accept()
	}
	p, _, _ := g.begin(job.NewID(), now)
	p.refused(30*time.Second, now)
	if rate := g.status("m", now).RatePerS; rate < 0.2 {
		t.Errorf("after 30 calls in a minute the rate is %.3f calls a second", rate)
	}
}

// Headers that say nothing is left, for hours, delay a call but do not stop the line.
func TestFarResetDoesNotStopTheLine(t *testing.T) {
	t.Parallel()
	for _, headers := range []string{
		"X-Ratelimit-Remaining: 0, X-Ratelimit-Reset: 86400",
		"X-Ratelimit-Limit-Requests: 1, X-Ratelimit-Remaining-Requests: 0, X-Ratelimit-Reset-Requests: 24h0m0s",
		"X-Ratelimit-Remaining-Tokens: 0, X-Ratelimit-Reset-Tokens: 6h0m0s",
	} {
		h := http.Header{}
		for line := range splitList(headers) {
			h.Set(line[0], line[1])
		}
		g, now := newGate(), time.Now()
		p, _, _ := g.begin(job.NewID(), now)
		p.accepted(h, true, now)
		if n, at := g.available(now); n != 0 || at.Sub(now) > longestReset {
			t.Errorf("%s: %d calls may begin, more in %v", headers, n, at.Sub(now))
		}
		if n, _ := g.available(now.Add(longestReset)); n == 0 {
			t.Errorf("%s: no call may begin after %v", headers, longestReset)
		}
	}
}

// Jobs that wait at a closed gate end at once when the process stops, also those that name another
// model than they did when they were submitted.
func TestStopWhileJobsWaitAtTheGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, answering(429, http.Header{"Retry-After": {"3600"}}, ""))
		_, _ = runFailing(t, e, hello)
		ctx, cancel := context.WithCancelCause(t.Context())
		jobs := 1000
		if testing.Short() {
			jobs = 100 // 1000 take the race detector 8 seconds
		}
		var all sync.WaitGroup
		for range jobs {
			all.Go(func() {
				sink := exectest.NewRecorder(t)
				defer sink.Close()
				task := exectest.Task([]byte(hello))
				task.Job.Resource = "another"
				if err := e.Execute(ctx, task, sink); err != exec.ErrStopping {
					t.Errorf("the attempt ended with %v", err)
				}
			})
		}
		time.Sleep(10 * time.Minute)
		cancel(exec.ErrStopping)
		all.Wait()
		if s := e.Gates()[0]; s.Calls != 0 || s.Refused != 1 {
			t.Errorf("the gate is %+v", s)
		}
	})
}

// On a server that refuses everything, jobs fail after their time, and it is asked rarely.
func TestServerThatAlwaysRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &limitedServer{limit: func(time.Time) (bool, time.Duration) { return false, 0 }, refusal: func(http.Header, time.Duration) {}}
		e := newInMemory(t, s)
		took, failed := runLine(t, e, 5, 5)
		if failed != 5 || took > time.Hour || s.refused > 30 {
			t.Errorf("%d jobs failed after %v and %d calls", failed, took, s.refused)
		}
		e.Close()
	})
}

// Headers say how many calls a server still takes.
func TestBudgetOfHeaders(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		headers string
		want    budget
		ok      bool
	}{
		"calls":               {"X-Ratelimit-Limit-Requests: 60, X-Ratelimit-Remaining-Requests: 59, X-Ratelimit-Reset-Requests: 1s", budget{60, 59, time.Second}, true},
		"a date":              {"Anthropic-Ratelimit-Requests-Limit: 50, Anthropic-Ratelimit-Requests-Remaining: 0, Anthropic-Ratelimit-Requests-Reset: 2026-01-02T03:04:35Z", budget{50, 0, 30 * time.Second}, true},
		"the plain name":      {"Ratelimit-Remaining: 3, Ratelimit-Reset: 10", budget{3, 3, 10 * time.Second}, true},
		"tokens left":         {"X-Ratelimit-Remaining-Tokens: 7, X-Ratelimit-Reset-Tokens: 3s", budget{}, false},
		"no tokens left":      {"X-Ratelimit-Remaining-Tokens: 0, X-Ratelimit-Reset-Tokens: 3s", budget{0, 0, 3 * time.Second}, true},
		"two limits":          {"X-Ratelimit-Remaining-Requests: 14000, X-Ratelimit-Reset-Requests: 6s, Ratelimit-Limit: 30, Ratelimit-Remaining: 2, Ratelimit-Reset: 40", budget{30, 2, 40 * time.Second}, true},
		"no reset":            {"X-Ratelimit-Remaining-Requests: 3", budget{}, false},
		"not a number":        {"X-Ratelimit-Remaining-Requests: many, X-Ratelimit-Reset-Requests: 1s", budget{}, false},
		"nothing of the kind": {"Date: x", budget{}, false},
	} {
		h := http.Header{}
		for line := range splitList(c.headers) {
			h.Set(line[0], line[1])
		}
		if got, ok := readBudget(h, now); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v, want %+v %v", name, got, ok, c.want, c.ok)
		}
	}
}

func splitList(headers string) func(yield func([2]string) bool) {
	return func(yield func([2]string) bool) {
		for line := range strings.SplitSeq(headers, ", ") {
			name, value, _ := strings.Cut(line, ": ")
			if !yield([2]string{name, value}) {
				return
			}
		}
	}
}

// Calls of jobs that the engine does not count as jobs of the model make no room: of jobs that an
// older version stored without a resource. The engine would lease jobs for them again and again
// while the gate is closed.
func TestUncountedCallsMakeNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := atomic.Int64{}
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) > 2 {
				w.Header().Set("Retry-After", "60")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			time.Sleep(20 * time.Second)
			streamHandler(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`, "[DONE]")(w, r)
		}))
		var old sync.WaitGroup
		for range 3 { // the third is refused
			old.Go(func() {
				sink := exectest.NewRecorder(t)
				_ = e.Execute(context.Background(), exectest.Task([]byte(hello)), sink)
				sink.Close()
			})
			time.Sleep(5 * time.Second)
		}
		if n := e.Resources().Limits()["m"]; n != 0 {
			t.Errorf("the limit is %d while the gate is closed, want 0", n)
		}
		old.Wait()
		e.Close()
	})
}
