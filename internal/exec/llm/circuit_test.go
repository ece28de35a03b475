package llm

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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

// upstream is a server that a test turns off and on, and that counts its calls.
type upstream struct {
	calls atomic.Int64
	fault atomic.Pointer[simmodel.Fault]
	model http.Handler
}

func newUpstream() *upstream {
	return &upstream{model: simmodel.New(simmodel.Options{TokensPerSecond: 10, Tokens: 5})}
}

func (u *upstream) fail(f simmodel.Fault) { u.fault.Store(&f) }
func (u *upstream) recover()              { u.fault.Store(nil) }

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.calls.Add(1)
	if f := u.fault.Load(); f != nil {
		simmodel.New(simmodel.Options{Fault: *f}).ServeHTTP(w, r)
		return
	}
	u.model.ServeHTTP(w, r)
}

// attempt asks the model once.
func attempt(t *testing.T, e *Executor) error {
	return exectest.Start(t, e, exectest.Task([]byte(hello))).Wait()
}

func faultOf(t *testing.T, err error) *job.Fault {
	t.Helper()
	if err == nil {
		t.Fatal("the attempt succeeded")
	}
	return job.FaultOf(err)
}

// What happens often enough opens the circuit; what the server says of a request
// alone does not.
func TestWhatOpensACircuit(t *testing.T) {
	for name, c := range map[string]struct {
		faults []simmodel.Fault // one after the other, again and again; "" answers
		after  int              // calls until it opens; 0 for never
	}{
		"an error, five times":               {[]simmodel.Fault{"500"}, 5},
		"not there, five times":              {[]simmodel.Fault{"503"}, 5},
		"a connection that breaks":           {[]simmodel.Fault{simmodel.Close}, 5},
		"a web page instead of an answer":    {[]simmodel.Fault{simmodel.WrongType}, 5},
		"an answer that breaks off, half":    {[]simmodel.Fault{simmodel.CloseMidStream, ""}, 11},
		"half of ten":                        {[]simmodel.Fault{"500", "500", ""}, 10},
		"every third is put up with":         {[]simmodel.Fault{"500", "", ""}, 0},
		"a request that is wrong":            {[]simmodel.Fault{"400"}, 0},
		"a key that is wrong":                {[]simmodel.Fault{"401"}, 0},
		"being asked to wait has its own":    {[]simmodel.Fault{"429"}, 0},
		"a wrong request among errors":       {[]simmodel.Fault{"500", "400", "400"}, 0},
		"an answer that breaks off, always":  {[]simmodel.Fault{simmodel.CloseMidStream}, 10},
		"too slow to begin, says the server": {[]simmodel.Fault{"408"}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream()
				e := inMemory(t, u)
				for n := 1; n <= 40; n++ {
					if f := c.faults[(n-1)%len(c.faults)]; f != "" {
						u.fail(f)
					} else {
						u.recover()
					}
					_ = attempt(t, e)
					if open := e.Circuits()[0].Open; open != (n == c.after) {
						t.Fatalf("after %d calls it is open: %v", n, open)
					} else if open {
						return
					}
				}
			})
		})
	}
}

// opened opens the circuit of a model whose server answers 500.
func opened(t *testing.T) (*upstream, *Executor) {
	u := newUpstream()
	e := inMemory(t, u)
	u.fail("500")
	for range mostInARow {
		if f := faultOf(t, attempt(t, e)); f.Class != job.Retryable {
			t.Fatalf("before the circuit opens a failure costs an attempt: %+v", f)
		}
	}
	return u, e
}

func TestWhileACircuitIsOpenNobodyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, e := opened(t)
		u.fail("500")
		time.Sleep(2 * time.Second)
		_ = attempt(t, e) // the first probe
		shown, called := e.Circuits()[0], u.calls.Load()
		if called != mostInARow+1 || !shown.Open || shown.Failures != mostInARow+1 || shown.Since.IsZero() {
			t.Fatalf("%d calls, %+v", called, shown)
		}
		for time.Until(shown.RetryAt) > standInLine {
			began := time.Now()
			f := faultOf(t, attempt(t, e))
			if f.Code != "circuit_open" || f.Class != job.Wait || time.Since(began) != standInLine || !strings.Contains(f.Message, "(500)") {
				t.Errorf("sent back after %v with %+v", time.Since(began), f)
			}
			if back := time.Now().Add(f.RetryAfter); back.Before(shown.RetryAt) || back.After(shown.RetryAt.Add(longestPause)) {
				t.Errorf("it is to come back %v after the next probe", back.Sub(shown.RetryAt))
			}
		}
		if u.calls.Load() != called {
			t.Error("the server was called")
		}
	})
}

func TestPausesDoubleUntilTheServerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, e := opened(t)
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			until := time.Until(e.Circuits()[0].RetryAt)
			if least := pause * time.Second; until < least || until > least*5/4 {
				t.Errorf("the pause is %v, want %v and up to a quarter more", until, least)
			}
			time.Sleep(until)
			if f := faultOf(t, attempt(t, e)); f.Code != "upstream_error" || f.Class != job.Wait || f.RetryAfter < time.Until(e.Circuits()[0].RetryAt) {
				t.Errorf("a probe that failed costs no attempt: %+v", f)
			}
		}
		u.recover()
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		if err := attempt(t, e); err != nil {
			t.Error(err)
		}
		if c := e.Circuits()[0]; c != (CircuitStatus{Model: "m"}) {
			t.Errorf("after an answer it is %+v", c)
		}
	})
}

// A hundred attempts come at once: one goes, and when it is answered, all do, before
// its answer is over.
func TestOneProbeGoesAndTheOthersFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, e := opened(t)
		u.recover()
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		var all sync.WaitGroup
		began := time.Now()
		for range 100 {
			all.Go(func() {
				if err := attempt(t, e); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if calls := u.calls.Load(); calls != mostInARow+100 {
			t.Errorf("%d calls", calls)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("an answer takes half a second, all of them %v", took)
		}
	})
}

func TestAProbeThatFailsIsTheOnlyCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, e := opened(t)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if f := faultOf(t, attempt(t, e)); f.Class != job.Wait {
					t.Errorf("%+v", f)
				}
			})
		}
		all.Wait()
		if calls := u.calls.Load(); calls != mostInARow+1 {
			t.Errorf("%d calls", calls)
		}
	})
}

// A probe that is cancelled says nothing of the server: the next attempt is the probe.
func TestAProbeThatIsCancelledLetsAnotherGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, e := opened(t)
		u.fail(simmodel.Hang)
		time.Sleep(time.Until(e.Circuits()[0].RetryAt))
		probe := exectest.Start(t, e, exectest.Task([]byte(hello)))
		synctest.Wait()
		other := exectest.Start(t, e, exectest.Task([]byte(hello)))
		synctest.Wait()
		u.recover()
		probe.Stop(exec.ErrCancelled)
		_ = probe.Wait()
		if err := other.Wait(); err != nil || e.Circuits()[0].Open {
			t.Errorf("%v, %+v", err, e.Circuits()[0])
		}
	})
}

// Calls that were under way when the circuit opened cost no attempt any more.
func TestCallsUnderWayAreSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		letGo := make(chan struct{})
		e := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-letGo
			w.WriteHeader(http.StatusInternalServerError)
		}))
		classes := make(chan job.Class, 100)
		for range 20 {
			go func() { classes <- faultOf(t, attempt(t, e)).Class }()
		}
		synctest.Wait()
		close(letGo)
		count := map[job.Class]int{}
		for range 20 {
			count[<-classes]++
		}
		if count[job.Retryable] != mostInARow || count[job.Wait] != 20-mostInARow {
			t.Errorf("%v", count)
		}
	})
}

// A server that says how long it is away is not asked sooner.
func TestAServersOwnWordForHowLongIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		for range mostInARow {
			_ = attempt(t, e)
		}
		if until := time.Until(e.Circuits()[0].RetryAt); until < 30*time.Second {
			t.Errorf("the next probe goes in %v", until)
		}
	})
}

// Models fail apart.
func TestEachModelHasItsOwnCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := newUpstream(), newUpstream()
		bad.fail("500")
		e := must(t, Config{Models: []Model{
			{Name: "bad", BaseURL: "http://bad.invalid/v1", Transport: loopback.Transport(bad)},
			{Name: "good", BaseURL: "http://good.invalid/v1", Transport: loopback.Transport(good)},
		}})
		for range mostInARow {
			_ = attempt(t, e)
		}
		other, err := e.WithDefault("good")
		if err != nil {
			t.Fatal(err)
		}
		if err := attempt(t, other); err != nil || !e.Circuits()[0].Open || e.Circuits()[1].Open {
			t.Errorf("%v, %+v", err, e.Circuits())
		}
	})
}

// What opens and closes is told once each time.
func TestACircuitTellsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told strings.Builder
		u := newUpstream()
		e := must(t, Config{
			Models:    []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}},
			Transport: loopback.Transport(u),
			Log:       slog.New(slog.NewTextHandler(&told, nil)),
		})
		u.fail("500")
		for range 20 {
			_ = attempt(t, e)
		}
		u.recover()
		time.Sleep(2 * longestPause)
		_ = attempt(t, e)
		if n := strings.Count(told.String(), "\n"); n != 2 || !strings.Contains(told.String(), "model=m failures=5") || !strings.Contains(told.String(), "answers again") {
			t.Errorf("%s", &told)
		}
	})
}

// TestACircuitKeepsItsRules has calls begin, answer, fail and be cancelled in any
// order, while time goes by.
func TestACircuitKeepsItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCircuit("m", slog.New(slog.DiscardHandler))
		now := time.Unix(1000, 0)
		cancelled, cancel := context.WithCancelCause(context.Background())
		cancel(exec.ErrCancelled)
		var out []*pass
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			step := rapid.SampledFrom([]string{"ask", "ask", "fail", "fail", "answer", "reject", "cancel", "pass"}).Draw(t, "step")
			if step == "pass" {
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
			}
			if step == "ask" {
				before := c.show()
				if p, _ := c.ask(now); p != nil {
					if before.Open && (!p.probe || now.Before(before.RetryAt)) {
						t.Fatalf("%+v let a call pass", before)
					}
					out = append(out, p)
				}
			}
			if i := len(out) - 1; i >= 0 {
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
					out[i].endAt(ctx, err, now)
					out[i].drop()
					out = append(out[:i], out[i+1:]...)
				}
			}
			checkCircuit(t, c, out, now)
		}
	})
}

func checkCircuit(t *rapid.T, c *circuit, out []*pass, now time.Time) {
	probes := 0
	for _, p := range out {
		if p.probe && !p.over {
			probes++
		}
	}
	switch {
	case c.open && probes > 1:
		t.Fatalf("%d probes are out", probes)
	case c.probing && !c.open, c.probing && probes == 0:
		t.Fatalf("it waits for a probe that is not out: %+v", c.show())
	case !c.open && c.inARow >= mostInARow:
		t.Fatalf("closed after %d failures", c.inARow)
	case c.open && c.retryAt.Sub(now) > longestPause*5/4:
		t.Fatalf("the next probe goes in %v", c.retryAt.Sub(now))
	case len(c.calls) > remembered:
		t.Fatalf("it remembers %d calls", len(c.calls))
	}
}
