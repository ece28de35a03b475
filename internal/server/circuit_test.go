package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// outage is a transport to a model's server that can be cut.
type outage struct {
	http.RoundTripper
	cut   atomic.Bool
	calls atomic.Int64 // while it was cut
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.cut.Load() {
		o.calls.Add(1)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return o.RoundTripper.RoundTrip(r)
}

// counting is an executor that counts attempts.
type counting struct {
	*llm.Executor
	tries *atomic.Int64
}

func (c counting) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	c.tries.Add(1)
	return c.Executor.Execute(ctx, t, out)
}

// A model's server is down for five minutes while 200 jobs wait. The server is rarely
// called, the jobs are not claimed and handed back all the time, none loses an attempt, and
// all succeed soon after the server is back.
func TestOutageOfAModelCostsNoAttempts(t *testing.T) {
	if testing.Short() {
		t.Skip("it simulates minutes of 200 jobs")
	}
	synctest.Test(t, func(t *testing.T) {
		way := &outage{RoundTripper: loopback.Transport(simmodel.New(simmodel.Options{Tokens: 20, TokensPerSecond: 20}))}
		way.cut.Store(true)
		models, err := llm.New(llm.Config{Models: []llm.Model{{Name: "m", BaseURL: "http://upstream.invalid/v1", Transport: way}}})
		if err != nil {
			t.Fatal(err)
		}
		s := openServer(t, t.TempDir())
		var tries atomic.Int64
		if err := s.Add("ask", config.Defaults(config.LLM), counting{models, &tries}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		if err := s.start(ctx); err != nil {
			t.Fatal(err)
		}
		e, owner := s.components.engine, job.Owner{User: "local"}
		var ids []job.ID
		for i := range 200 {
			snap, _, err := e.Submit(t.Context(), engine.Request{Owner: owner, Queue: "ask",
				Input: fmt.Appendf(nil, `{"messages":[{"role":"user","content":"question %d"}]}`, i)})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, snap.ID)
		}
		time.Sleep(5 * time.Minute)
		c := models.Circuits()[0]
		if n := way.calls.Load(); n > 60 || !c.Open {
			t.Errorf("%d calls in five minutes of outage; the circuit is %+v", n, c)
		}
		if n := tries.Load(); n > 4000 {
			t.Errorf("200 jobs were claimed and handed back %d times", n)
		}
		way.cut.Store(false)
		back := time.Now()
		for _, id := range ids {
			snap, err := e.Wait(t.Context(), owner, id, 10*time.Minute)
			if err != nil || snap.State != job.Succeeded || snap.Attempt != 1 {
				t.Fatalf("%v: %v after %d attempts (%+v)", err, snap.State, snap.Attempt, snap.Failure)
			}
		}
		if took := time.Since(back); took > 2*time.Minute {
			t.Errorf("all were done %v after the server was back", took)
		}
		t.Logf("%d calls during the outage, %d attempts, done after %v", way.calls.Load(), tries.Load(), time.Since(back))
		stop()
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
}
