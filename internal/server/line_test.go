package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

var lineOwner = job.Owner{User: "local"}

// withModels runs a test in a bubble, with a queue "ask" of the models.
func withModels(t *testing.T, models []llm.Model, test func(t *testing.T, e *engine.Engine, x *llm.Executor)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x, err := llm.New(llm.Config{Models: models})
		if err != nil {
			t.Fatal(err)
		}
		s := openServer(t, t.TempDir())
		q := config.Defaults(config.LLM)
		q.Retry.For = 30 * time.Second // shorter than the waits that servers ask for
		if err := s.Add("ask", q, x); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		if err := s.start(ctx); err != nil {
			t.Fatal(err)
		}
		test(t, s.components.engine, x)
		stop()
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
		x.Close()
	})
}

func modelAt(name string, concurrency int, h http.HandlerFunc) llm.Model {
	return llm.Model{Name: name, BaseURL: "http://" + name + ".invalid/v1", Concurrency: concurrency, Transport: loopback.Transport(h)}
}

func answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
}

func ask(t *testing.T, e *engine.Engine, model, key string) job.ID {
	t.Helper()
	snap, _, err := e.Submit(t.Context(), engine.Request{Owner: lineOwner, Queue: "ask", Key: key,
		Input: fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":"x"}]}`, model)})
	if err != nil {
		t.Fatal(err)
	}
	return snap.ID
}

func mustSucceed(t *testing.T, e *engine.Engine, id job.ID, within time.Duration) {
	t.Helper()
	snap, err := e.Wait(t.Context(), lineOwner, id, within)
	if err != nil || snap.State != job.Succeeded || snap.Attempt != 1 {
		t.Fatalf("within %s: %v, %v after %d attempts, held back by %q (%+v)", within, err, snap.State, snap.Attempt, snap.HeldBackBy, snap.Failure)
	}
}

// A job of an idle model starts at once behind hundreds of jobs of a slow one, of one whose
// circuit is open, and of one that asks to wait. Those say why they wait.
func TestIdleModelStartsBehindOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("stores hundreds of jobs")
	}
	t.Parallel()
	slow := modelAt("slow", 2, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Minute):
			answer(w)
		case <-r.Context().Done():
		}
	})
	broken := modelAt("broken", 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	limited := modelAt("limited", 0, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	fast := modelAt("fast", 0, func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	withModels(t, []llm.Model{slow, broken, limited, fast}, func(t *testing.T, e *engine.Engine, x *llm.Executor) {
		var last []job.ID
		for range 200 {
			last = []job.ID{ask(t, e, "slow", ""), ask(t, e, "broken", ""), ask(t, e, "limited", "")}
		}
		time.Sleep(20 * time.Second)
		for range 10 {
			began := time.Now()
			mustSucceed(t, e, ask(t, e, "fast", ""), 100*time.Millisecond)
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Errorf("a job of an idle model took %v", took)
			}
			time.Sleep(time.Second)
		}
		if c := x.Circuits()[1]; !c.Open {
			t.Errorf("the circuit of the broken model is closed: %+v", c)
		}
		for _, id := range last {
			snap, err := e.Get(t.Context(), lineOwner, id)
			if err != nil || snap.State != job.Queued || snap.HeldBackBy != job.HeldBackByResource || snap.Attempt != 0 {
				t.Errorf("%s: %v, %v is held back by %q after %d attempts", snap.Resource, err, snap.State, snap.HeldBackBy, snap.Attempt)
			}
			cancelled, err := e.Cancel(t.Context(), lineOwner, id)
			if err != nil || cancelled.State != job.Cancelled {
				t.Errorf("a cancel of a held job: %v, %v", err, cancelled.State)
			}
		}
		views, err := e.Queues(t.Context())
		for _, v := range views {
			if v.Name == "ask" && v.Counts.Running > 4 {
				t.Errorf("%d jobs hold slots: %v", v.Counts.Running, err)
			}
		}
	})
}

// A server takes 30 calls a minute. Of 120 jobs none fails, although the line is longer than
// retry.for_s, and a handful of calls is refused.
func TestLineOfARateLimitedModel(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a hundred jobs")
	}
	t.Parallel()
	var mu sync.Mutex
	var window time.Time
	used, refused := 0, 0
	limited := modelAt("limited", 0, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		now := time.Now()
		if now.Sub(window) >= time.Minute {
			window, used = now, 0
		}
		used++
		ok, wait := used <= 30, window.Add(time.Minute).Sub(now)
		if !ok {
			refused++
		}
		mu.Unlock()
		if !ok {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		time.Sleep(time.Second)
		answer(w)
	})
	withModels(t, []llm.Model{limited}, func(t *testing.T, e *engine.Engine, x *llm.Executor) {
		began := time.Now()
		var ids []job.ID
		for i := range 120 {
			ids = append(ids, ask(t, e, "limited", fmt.Sprint(i%7)))
		}
		for _, id := range ids {
			mustSucceed(t, e, id, 10*time.Minute)
		}
		t.Logf("%d calls refused, done after %v, %+v", refused, time.Since(began), x.Gates()[0])
		if took := time.Since(began); refused > 15 || took > 6*time.Minute {
			t.Errorf("%d calls were refused, and it took %v", refused, took)
		}
	})
}

// Jobs of one key fail each time. They do not open the circuit, and the jobs of other keys run as
// if they were not there.
func TestBadJobsOfOneKeyDelayNoOther(t *testing.T) {
	if testing.Short() {
		t.Skip("fails many attempts in real time")
	}
	t.Parallel()
	picky := modelAt("picky", 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Bad") != "" || r.ContentLength > 300 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answer(w)
	})
	withModels(t, []llm.Model{picky}, func(t *testing.T, e *engine.Engine, x *llm.Executor) {
		for range 50 {
			for range 4 {
				_, _, err := e.Submit(t.Context(), engine.Request{Owner: lineOwner, Queue: "ask", Key: "bad",
					Input: fmt.Appendf(nil, `{"model":"picky","messages":[{"role":"user","content":"%0400d"}]}`, 1)})
				if err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			mustSucceed(t, e, ask(t, e, "picky", "good"), time.Second)
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Fatalf("a healthy job of another key took %v", took)
			}
			time.Sleep(time.Second)
		}
		if c := x.Circuits()[0]; c.Open {
			t.Errorf("one key has opened the circuit: %+v", c)
		}
	})
}

// A submitter's own clocks, far too short for a healthy model, move nothing that others share.
func TestShortClocksOfASubmitterHarmNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts in real time")
	}
	t.Parallel()
	steady := modelAt("steady", 0, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(500 * time.Millisecond):
			answer(w)
		case <-r.Context().Done():
		}
	})
	withModels(t, []llm.Model{steady}, func(t *testing.T, e *engine.Engine, x *llm.Executor) {
		policy := config.Defaults(config.LLM).Policy()
		policy.Timeouts.FirstOutput, policy.Timeouts.Request = 10*time.Millisecond, 20*time.Millisecond
		for i := range 60 {
			own := policy
			if i%2 == 0 {
				own.Timeouts.FirstOutput = 0
			}
			_, _, err := e.Submit(t.Context(), engine.Request{Owner: lineOwner, Queue: "ask", Policy: &own, Key: fmt.Sprint(i),
				Input: []byte(`{"model":"steady","messages":[{"role":"user","content":"x"}]}`)})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			mustSucceed(t, e, ask(t, e, "steady", "good"), 2*time.Second)
			if took := time.Since(began); took > 800*time.Millisecond {
				t.Fatalf("after %d such jobs another one took %v", i+1, took)
			}
		}
		if c := x.Circuits()[0]; c.Open || c.Failures > 0 {
			t.Errorf("the circuit is %+v", c)
		}
	})
}
