package engine_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// loadSim is a queue whose load the test changes: the duration of its jobs, the rate of submits
// and the number of slots.
type loadSim struct {
	*harness
	rng  *rand.Rand
	keys []string

	mu sync.Mutex
	// guarded by mu
	meanDuration time.Duration // the duration of a job is up to a third more or less
	ended        int           // number of jobs that ended since the load changed
	samples      []*sample     // samples since the load changed
	work         sync.WaitGroup
}

// sample is a job and its estimate.
type sample struct {
	submittedAt time.Time
	estimate    time.Duration
	position    int
	endedBefore int // number of jobs that had ended since the load changed
	took        time.Duration
}

func newLoadSim(t *testing.T) *loadSim {
	s := engine.NewTestStore(t, sqlite.Options{Unsynced: true})
	q := queues()[0]
	q.MaxDepth = 100_000
	return &loadSim{
		harness: startWithQueues(t, s, []engine.Queue{q}), rng: rand.New(rand.NewPCG(1, 2)),
		keys: []string{"heavy", "heavy", "heavy", "light", "other"},
	}
}

// addWorker adds a worker with the given number of slots.
func (s *loadSim) addWorker(slots int) (stop func()) {
	return s.Consume(job.Worker{Name: "shop", Queue: "sim", Slots: slots, Deliver: func(c job.Claimed) { s.work.Go(func() { s.runJob(c) }) }})
}

func (s *loadSim) runJob(c job.Claimed) {
	factor := 0.67 + 0.67*float64(c.Input[0])/255
	s.mu.Lock()
	duration := time.Duration(float64(s.meanDuration) * factor)
	s.mu.Unlock()
	time.Sleep(duration)
	if _, err := s.Finish(context.Background(), c.Lease(), job.Outcome{}); err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended++
}

// setLoad sets the mean duration of the jobs and drops the samples so far.
func (s *loadSim) setLoad(meanDuration time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meanDuration, s.ended, s.samples = meanDuration, 0, nil
}

// submitFor submits jobs for a duration, one per interval on average.
func (s *loadSim) submitFor(duration, every time.Duration) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		s.submitOne()
		time.Sleep(time.Duration(s.rng.ExpFloat64() * float64(every)))
	}
}

func (s *loadSim) submitOne() {
	snap := s.submit(engine.Request{Key: s.keys[s.rng.IntN(len(s.keys))], Priority: 4 + s.rng.IntN(3), Input: []byte{byte(s.rng.IntN(256))}})
	s.mu.Lock()
	a := &sample{submittedAt: time.Now(), estimate: snap.Estimate, position: snap.Position, endedBefore: s.ended}
	s.samples = append(s.samples, a)
	s.mu.Unlock()
	s.work.Go(func() {
		if _, err := s.Wait(context.Background(), local, snap.ID, 1000*time.Hour); err != nil {
			s.t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		a.took = time.Since(a.submittedAt)
	})
}

// countGood counts the samples whose estimate was within a factor of two of the real
// duration. It leaves out jobs that have not ended, and those submitted before five jobs
// had ended under the current load.
func (s *loadSim) countGood(name string) (good, all int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.samples {
		if a.took == 0 || a.endedBefore < 5 {
			continue
		}
		all++
		if a.estimate <= 2*a.took && a.took <= 2*a.estimate {
			good++
		} else if testing.Verbose() {
			s.t.Logf("%s: position %d, estimate %v, took %v", name, a.position, a.estimate.Round(time.Millisecond), a.took.Round(time.Millisecond))
		}
	}
	s.t.Logf("%s: %d of %d", name, good, all)
	return good, all
}

// The estimate at a submit is within a factor of two of the time until the job ends: for 90 % of
// the jobs under each load, and for 95 % over all loads, once five jobs have ended under the
// current load. Keys take turns, and jobs with priority overtake others.
func TestEstimatesStayWithinFactorOfTwo(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLoadSim(t)
		s.addWorker(4)
		good, all := 0, 0
		check := func(name string) {
			g, a := s.countGood(name)
			if good, all = good+g, all+a; a < 10 || 10*g < 9*a {
				t.Errorf("%s: of %d estimates %d were within a factor of two", name, a, g)
			}
		}
		for _, load := range []struct {
			name         string
			takes, every time.Duration
			lasts        time.Duration
		}{
			{"at rest", 2 * time.Second, 4 * time.Second, 4 * time.Minute},
			{"busy", 2 * time.Second, 600 * time.Millisecond, 4 * time.Minute},
			{"too much", 2 * time.Second, 470 * time.Millisecond, 4 * time.Minute},
			{"slower", 8 * time.Second, 2500 * time.Millisecond, 10 * time.Minute},
			{"much faster", 500 * time.Millisecond, 200 * time.Millisecond, 2 * time.Minute},
			{"at rest again", 500 * time.Millisecond, time.Second, 2 * time.Minute},
			{"slow", 20 * time.Second, 6 * time.Second, 20 * time.Minute},
		} {
			s.setLoad(load.takes)
			s.submitFor(load.lasts, load.every)
			check(load.name)
		}
		time.Sleep(10 * time.Minute) // until all jobs have ended
		s.setLoad(2 * time.Second)
		s.submitFor(time.Minute, time.Second)
		time.Sleep(10 * time.Minute)
		for range 100 {
			s.submitOne()
		}
		s.addWorker(4)
		s.setLoad(2 * time.Second)
		for range 60 {
			time.Sleep(300 * time.Millisecond)
			s.submitOne()
		}
		time.Sleep(10 * time.Minute)
		check("twice as many at once")
		if 20*good < 19*all {
			t.Errorf("of %d estimates %d were within a factor of two", all, good)
		}
		s.stop()
	})
}

// Get estimates the remaining time of a job that is running, delayed, or waiting in a queue
// without workers.
func TestEstimateInEachState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLoadSim(t)
		stop := s.addWorker(1)
		s.setLoad(10 * time.Second)
		ask := func(r engine.Request) engine.Snapshot {
			r.Input = []byte{127}
			return s.submit(r)
		}
		estimate := func(snap engine.Snapshot) time.Duration {
			now, err := s.Get(context.Background(), local, snap.ID)
			if err != nil {
				t.Fatal(err)
			}
			return now.Estimate.Round(time.Second)
		}
		want := func(what string, got, want time.Duration) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		first := ask(engine.Request{})
		want("before anything was learned", estimate(first), 0)
		s.work.Wait()

		running := ask(engine.Request{})
		want("a job that just began", estimate(running), 10*time.Second)
		time.Sleep(6 * time.Second)
		want("a job that runs since 6 s", estimate(running), 4*time.Second)
		queued := ask(engine.Request{})
		want("a job that is next", estimate(queued), 14*time.Second)
		want("a job that is due soon", estimate(ask(engine.Request{Delay: time.Second})), 24*time.Second)
		want("a job that is due in ten minutes", estimate(ask(engine.Request{Delay: 10 * time.Minute})), 10*time.Minute+10*time.Second)

		views, err := s.Queues(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		want("what a job submitted now would wait", views[0].Wait.Round(time.Second), 14*time.Second)
		want("and run", views[0].Run.Round(time.Second), 10*time.Second)

		if _, err := s.SetPaused(context.Background(), "sim", true); err != nil {
			t.Fatal(err)
		}
		want("a job of a paused queue", estimate(queued), 0)
		want("one that runs there", estimate(running), 4*time.Second)
		if _, err := s.SetPaused(context.Background(), "sim", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute) // until all jobs have ended, including the delayed ones
		stop()
		want("without workers", estimate(ask(engine.Request{})), 0)
		s.stop()
	})
}

// A submitter's own clocks do not move the estimates of others.
func TestEstimateIgnoresOwnClocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHarness(t, newStore(t))
		h.startWorker(2)
		h.submit(engine.Request{})
		c := <-h.jobs
		time.Sleep(20 * time.Second)
		h.finish(c, job.Outcome{})
		own := policy()
		own.Timeouts.RunHard = 10 * time.Millisecond
		for range 50 {
			h.submit(engine.Request{Policy: &own})
			c := <-h.jobs
			time.Sleep(10 * time.Millisecond)
			h.finish(c, job.Outcome{Fault: job.RunTimeout(10 * time.Millisecond)})
		}
		views, err := h.Queues(context.Background())
		if err != nil || views[0].Run < 15*time.Second {
			t.Errorf("a job is expected to run for %v: %v", views[0].Run, err)
		}
		h.stop()
	})
}
