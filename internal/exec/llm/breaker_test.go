package llm

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// upstream is a model server that a test can break and repair. It counts its calls.
type upstream struct {
	calls atomic.Int64
	fault atomic.Pointer[simmodel.Fault]
	model http.Handler
}

func newUpstream() *upstream {
	return &upstream{model: simmodel.New(simmodel.Options{TokensPerSecond: 10, Tokens: 5})}
}

func (u *upstream) fail(f simmodel.Fault) { u.fault.Store(&f) }
func (u *upstream) repair()               { u.fault.Store(nil) }

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.calls.Add(1)
	if f := u.fault.Load(); f != nil {
		simmodel.New(simmodel.Options{Fault: *f}).ServeHTTP(w, r)
		return
	}
	u.model.ServeHTTP(w, r)
}

// runAttempt runs one attempt and returns its error.
func runAttempt(t *testing.T, e *Executor) error {
	return exectest.Start(t, e, exectest.Task([]byte(hello))).Wait()
}

func faultOf(t *testing.T, err error) *job.Fault {
	t.Helper()
	if err == nil {
		t.Fatal("the attempt succeeded")
	}
	return job.FaultOf(err)
}

// Only failures of the server open the circuit, not refusals of a request.
func TestCircuitOpensOnServerFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults []simmodel.Fault // repeated in a cycle; "" is a successful answer
		after  int              // number of calls that opens the circuit; 0 for never
	}{
		"an error, five times":              {[]simmodel.Fault{"500"}, 5},
		"unavailable, five times":           {[]simmodel.Fault{"503"}, 5},
		"a connection that breaks":          {[]simmodel.Fault{simmodel.Close}, 5},
		"a web page instead of an answer":   {[]simmodel.Fault{simmodel.WrongType}, 5},
		"every second answer breaks off":    {[]simmodel.Fault{simmodel.CloseMidStream, ""}, 11},
		"more than half of ten":             {[]simmodel.Fault{"500", "500", ""}, 10},
		"one error in three":                {[]simmodel.Fault{"500", "", ""}, 0},
		"an invalid request":                {[]simmodel.Fault{"400"}, 0},
		"an invalid key":                    {[]simmodel.Fault{"401"}, 0},
		"a rate limit":                      {[]simmodel.Fault{"429"}, 0},
		"an error among invalid requests":   {[]simmodel.Fault{"500", "400", "400"}, 0},
		"every answer breaks off":           {[]simmodel.Fault{simmodel.CloseMidStream}, 10},
		"a timeout that the server reports": {[]simmodel.Fault{"408"}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream()
				e := newInMemory(t, u)
				for n := 1; n <= 40; n++ {
					if f := c.faults[(n-1)%len(c.faults)]; f != "" {
						u.fail(f)
					} else {
						u.repair()
					}
					_ = runAttempt(t, e)
					if open := e.Circuits()[0].Open; open != (n == c.after) {
						t.Fatalf("after %d calls, open is %v", n, open)
					} else if open {
						return
					}
				}
			})
		})
	}
}

// openBreaker returns a model with an open circuit, whose server answers 500.
func openBreaker(t *testing.T) (*upstream, *Executor) {
	u := newUpstream()
	e := newInMemory(t, u)
	u.fail("500")
	for range maxConsecutiveFailures {
		if f := faultOf(t, runAttempt(t, e)); f.Class != job.Retryable {
			t.Fatalf("before the circuit opens, a failure must cost an attempt: %+v", f)
		}
	}
	return u, e
}

func TestOpenCircuitMakesNoCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, e := openBreaker(t)
		u.fail("500")
		time.Sleep(2 * time.Second)
		_ = runAttempt(t, e) // the first probe
		shown, called := e.Circuits()[0], u.calls.Load()
		if called != maxConsecutiveFailures+1 || !shown.Open || shown.Failures != maxConsecutiveFailures+1 || shown.Since.IsZero() {
			t.Fatalf("%d calls, %+v", called, shown)
		}
		for time.Until(shown.RetryAt) > maxWait {
			start := time.Now()
			f := faultOf(t, runAttempt(t, e))
			if f.Code != "circuit_open" || f.Class != job.Wait || time.Since(start) != maxWait || !strings.Contains(f.Message, "(500)") {
				t.Errorf("sent back after %v with %+v", time.Since(start), f)
			}
			if back := time.Now().Add(f.RetryAfter); back.Before(shown.RetryAt) || back.After(shown.RetryAt.Add(maxOpenTime)) {
				t.Errorf("the job returns %v after the next probe", back.Sub(shown.RetryAt))
			}
		}
		if u.calls.Load() != called {
			t.Error("the server was called")
		}
	})
}

func TestOpenTimeDoublesUntilTheServerAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, e := openBreaker(t)
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			until := time.Until(e.Circuits()[0].RetryAt)
			if minimum := pause * time.Second; until < minimum || until > minimum*5/4 {
				t.Errorf("the next probe is in %v, want %v and up to a quarter more", until, minimum)
			}
			time.Sleep(until)
			if f := faultOf(t, runAttempt(t, e)); f.Code != "upstream_error" || f.Class != job.Wait || f.RetryAfter < time.Until(e.Circuits()[0].RetryAt) {
				t.Errorf("a failed probe must cost no attempt: %+v", f)
			}
		}
		u.repair()
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		if err := runAttempt(t, e); err != nil {
			t.Error(err)
		}
		if c := e.Circuits()[0]; c != (CircuitStatus{Model: "m"}) {
			t.Errorf("after an answer the status is %+v", c)
		}
	})
}

// Of a hundred attempts one is the probe. When its answer begins, all others are sent, before
// the answer ends.
func TestAnsweredProbeClosesTheCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, e := openBreaker(t)
		u.repair()
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		var all sync.WaitGroup
		start := time.Now()
		for range 100 {
			all.Go(func() {
				if err := runAttempt(t, e); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if calls := u.calls.Load(); calls != maxConsecutiveFailures+100 {
			t.Errorf("%d calls", calls)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("one answer takes half a second, and all of them took %v", took)
		}
	})
}

func TestFailedProbeIsTheOnlyCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, e := openBreaker(t)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if f := faultOf(t, runAttempt(t, e)); f.Class != job.Wait {
					t.Errorf("%+v", f)
				}
			})
		}
		all.Wait()
		if calls := u.calls.Load(); calls != maxConsecutiveFailures+1 {
			t.Errorf("%d calls", calls)
		}
	})
}

// A cancelled probe proves nothing about the server, so the next attempt is the probe.
func TestCancelledProbeIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, e := openBreaker(t)
		u.fail(simmodel.Hang)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		probe := exectest.Start(t, e, exectest.Task([]byte(hello)))
		synctest.Wait()
		other := exectest.Start(t, e, exectest.Task([]byte(hello)))
		synctest.Wait()
		u.repair()
		probe.Stop(exec.ErrCancelled)
		_ = probe.Wait()
		if err := other.Wait(); err != nil || e.Circuits()[0].Open {
			t.Errorf("%v, %+v", err, e.Circuits()[0])
		}
	})
}

// Calls that were running when the circuit opened cost no attempt if they fail.
func TestRunningCallsCostNoAttemptOnceOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-release
			w.WriteHeader(http.StatusInternalServerError)
		}))
		classes := make(chan job.Class, 100)
		for range 20 {
			go func() { classes <- faultOf(t, runAttempt(t, e)).Class }()
		}
		synctest.Wait()
		close(release)
		count := map[job.Class]int{}
		for range 20 {
			count[<-classes]++
		}
		if count[job.Retryable] != maxConsecutiveFailures || count[job.Wait] != 20-maxConsecutiveFailures {
			t.Errorf("%v", count)
		}
	})
}

// The breaker does not probe before the time that the server asked for.
func TestOpenTimeHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newInMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		for range maxConsecutiveFailures {
			_ = runAttempt(t, e)
		}
		if until := time.Until(e.Circuits()[0].RetryAt); until < 30*time.Second {
			t.Errorf("the next probe is in %v", until)
		}
	})
}

func TestEachModelHasItsOwnCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad, good := newUpstream(), newUpstream()
		bad.fail("500")
		e := mustNew(t, Config{Models: []Model{
			{Name: "bad", BaseURL: "http://bad.invalid/v1", Transport: loopback.Transport(bad)},
			{Name: "good", BaseURL: "http://good.invalid/v1", Transport: loopback.Transport(good)},
		}})
		for range maxConsecutiveFailures {
			_ = runAttempt(t, e)
		}
		other, err := e.WithDefault("good")
		if err != nil {
			t.Fatal(err)
		}
		if err := runAttempt(t, other); err != nil || !e.Circuits()[0].Open || e.Circuits()[1].Open {
			t.Errorf("%v, %+v", err, e.Circuits())
		}
	})
}

// Opening and closing are logged once each.
func TestCircuitLogsOpeningAndClosing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		u := newUpstream()
		e := mustNew(t, Config{
			Models:    []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
			Transport: loopback.Transport(u),
			Log:       slog.New(slog.NewTextHandler(&log, nil)),
		})
		u.fail("500")
		for range 20 {
			_ = runAttempt(t, e)
		}
		u.repair()
		time.Sleep(2 * maxOpenTime)
		_ = runAttempt(t, e)
		if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "model=m failures=5") || !strings.Contains(log.String(), "answers again") {
			t.Errorf("%s", &log)
		}
	})
}

// TestCircuitInvariants starts, answers, fails and cancels calls in random order while time
// passes.
func TestCircuitInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBreaker("m", slog.New(slog.DiscardHandler))
		lone := rapid.Bool().Draw(t, "one party")
		now := time.Unix(1000, 0)
		cancelled, cancel := context.WithCancelCause(context.Background())
		cancel(exec.ErrCancelled)
		var permits []*permit
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			step := rapid.SampledFrom([]string{"ask", "ask", "fail", "fail", "answer", "reject", "cancel", "pass"}).Draw(t, "step")
			if step == "pass" {
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
			}
			if step == "ask" {
				before := b.status()
				party := "a"
				if !lone {
					party = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "party")
				}
				if p, _ := b.tryAcquire(now, party); p != nil {
					if before.Open && (!p.probe || now.Before(before.RetryAt)) {
						t.Fatalf("%+v permitted a call", before)
					}
					permits = append(permits, p)
				}
			}
			if i := len(permits) - 1; i >= 0 {
				i = rapid.IntRange(0, i).Draw(t, "which")
				ends := map[string]error{
					"fail": &job.Fault{Code: "upstream_error", Class: job.Retryable}, "answer": nil,
					"reject": &job.Fault{Code: "upstream_rejected", Class: job.Final}, "cancel": exec.ErrCancelled,
				}
				if err, ok := ends[step]; ok {
					ctx := context.Background()
					if step == "cancel" {
						ctx = cancelled
					}
					permits[i].finishAt(ctx, err, now)
					permits[i].release()
					permits = append(permits[:i], permits[i+1:]...)
				}
			}
			checkBreaker(t, b, permits, now, lone)
		}
	})
}

func checkBreaker(t *rapid.T, b *breaker, permits []*permit, now time.Time, lone bool) {
	probes := 0
	for _, p := range permits {
		if p.probe && !p.returned {
			probes++
		}
	}
	switch {
	case b.open && probes > 1:
		t.Fatalf("%d probes are running", probes)
	case b.probing && !b.open, b.probing && probes == 0:
		t.Fatalf("it waits for a probe that is not running: %+v", b.status())
	case !b.open && b.failures >= maxConsecutiveFailures && len(b.failing) > 1:
		t.Fatalf("closed after %d failures of %v", b.failures, b.failing)
	case b.open && lone:
		t.Fatal("one party has opened the circuit")
	case b.open && b.retryAt.Sub(now) > maxOpenTime*5/4:
		t.Fatalf("the next probe is in %v", b.retryAt.Sub(now))
	case len(b.window) > windowSize:
		t.Fatalf("the window has %d calls", len(b.window))
	}
}

// taskOf returns a task of a key.
func taskOf(key string) exec.Task {
	task := exectest.Task([]byte(hello))
	task.Job.Key = key
	return task
}

// The failures of one key, one user or one job alone never open the circuit, and a second party
// opens it.
func TestOnePartyOpensNoCircuit(t *testing.T) {
	t.Parallel()
	single := exectest.Task([]byte(hello))
	for name, next := range map[string]func() exec.Task{
		"a key":  func() exec.Task { return taskOf("a") },
		"a job":  func() exec.Task { return single },
		"a user": func() exec.Task { task := taskOf(""); task.Job.Owner.User = "mallory"; return task },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream()
				e := newInMemory(t, u)
				u.fail("500")
				for range 3 * windowSize {
					if f := faultOf(t, exectest.Start(t, e, next()).Wait()); f.Class != job.Retryable {
						t.Fatalf("a failure of its own costs an attempt: %+v", f)
					}
				}
				if c := e.Circuits()[0]; c.Open {
					t.Fatalf("the circuit is open: %+v", c)
				}
				_ = exectest.Start(t, e, taskOf("b")).Wait()
				if c := e.Circuits()[0]; !c.Open {
					t.Errorf("a second party fails too, and the circuit is closed: %+v", c)
				}
			})
		})
	}
}

// A server that cannot be reached is nobody's fault: the circuit opens for one key, too.
func TestUnreachableServerOpensTheCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := mustNew(t, Config{Models: []Model{{Name: "m", BaseURL: "http://m.invalid", Transport: failingTransport{
			&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}}}}})
		for range maxConsecutiveFailures {
			_ = exectest.Start(t, e, taskOf("a")).Wait()
		}
		if c := e.Circuits()[0]; !c.Open {
			t.Errorf("%+v", c)
		}
	})
}

// The party whose probe failed is not the next probe while another one waits. Alone it may try
// again, later.
func TestFailedProbeLetsOthersGoFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, e := openBreaker(t)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		_ = exectest.Start(t, e, taskOf("bad")).Wait()
		called := u.calls.Load()
		u.repair()
		next := e.Circuits()[0].RetryAt
		time.Sleep(time.Until(next))
		if f := faultOf(t, exectest.Start(t, e, taskOf("bad")).Wait()); f.Code != "circuit_open" || u.calls.Load() != called {
			t.Errorf("the failed probe is the next one: %+v after %d calls", f, u.calls.Load())
		}
		if err := exectest.Start(t, e, taskOf("good")).Wait(); err != nil || e.Circuits()[0].Open {
			t.Errorf("another party's probe: %v, %+v", err, e.Circuits()[0])
		}

		u, e = openBreaker(t)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		_ = exectest.Start(t, e, taskOf("bad")).Wait()
		u.repair()
		time.Sleep(10 * time.Second)
		if err := exectest.Start(t, e, taskOf("bad")).Wait(); err != nil {
			t.Errorf("alone it is never a probe again: %v", err)
		}
	})
}

// A call that ends by a clock counts against the server only if it ran for as long as the queue's
// own clocks allow.
func TestOwnClocksProveNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		queue job.Timeouts
		opens bool
	}{
		{job.Timeouts{}, false},
		{job.Timeouts{FirstOutput: time.Minute, RunHard: 5 * time.Minute}, false},
		{job.Timeouts{FirstOutput: 10 * time.Millisecond}, true},
	} {
		for _, byRequest := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream()
				u.fail(simmodel.Hang)
				e := newInMemory(t, u)
				for range maxConsecutiveFailures {
					task := exectest.Task([]byte(hello))
					task.Clocks = c.queue
					if byRequest {
						task.Job.Policy.Timeouts.Request = 10 * time.Millisecond
					}
					a := exectest.Start(t, e, task)
					time.Sleep(10 * time.Millisecond)
					a.Stop(exec.ErrTimeout)
					_ = a.Wait()
				}
				if open := e.Circuits()[0].Open; open != c.opens {
					t.Errorf("with the queue's clocks %+v, the circuit is open: %v", c.queue, open)
				}
			})
		}
	}
}

// While its circuit is open, a job that the engine admitted is sent back at once, one a second;
// the limit lets no other begin.
func TestOpenCircuitLimitsAdmission(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, e := openBreaker(t)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		_ = runAttempt(t, e) // a failed probe: the next one is seconds away
		for range 2 {
			if n := e.Resources().Limits()["m"]; n != 1 {
				t.Fatalf("%d attempts may be under way", n)
			}
			task, began := taskOf(""), time.Now()
			task.Job.Resource = e.Resource(task.Input)
			if f := faultOf(t, exectest.Start(t, e, task).Wait()); f.Code != "circuit_open" || time.Since(began) > 0 {
				t.Errorf("after %v: %+v", time.Since(began), f)
			}
			if n := e.Resources().Limits()["m"]; n != 0 {
				t.Fatalf("%d more attempts may be under way within the same second", n)
			}
			time.Sleep(maxWait)
		}
	})
}
