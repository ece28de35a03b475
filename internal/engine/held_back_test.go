package engine_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// waitForPoll waits until this process has read the changes of other processes.
func waitForPoll() {
	time.Sleep(pollBound)
	synctest.Wait()
}

// Jobs and queues report each reason to wait.
func TestHeldBackByReportsReason(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		q := queues()
		q[0].MaxRunning, q[0].KeyRunning, q[0].MaxDepth, q[0].MaxAttempts = 2, 1, 20, 9
		q[0].Policy.Retry.Backoff = time.Minute
		a := startWithQueues(t, s, q)
		alone := a.submit(engine.Request{})
		a.expectHeldBackBy("no worker", alone.ID, job.HeldBackByNoWorker)
		a.expectQueueHeldBackBy("no worker", job.HeldBackByNoWorker)
		a.setPaused(true)
		a.expectHeldBackBy("paused", alone.ID, job.HeldBackByPause)
		a.expectQueueHeldBackBy("paused", job.HeldBackByPause)
		a.setPaused(false)
		a.startWorker(1)
		first := a.nextJob("resumed")
		a.expectHeldBackBy("it runs", first.Job.ID, "")
		turn := a.submit(engine.Request{})
		a.expectHeldBackBy("the slot is in use", turn.ID, job.HeldBackByTurn)
		a.expectQueueHeldBackBy("the slot is in use", job.HeldBackByTurn)
		later := a.submit(engine.Request{Delay: time.Hour})
		a.expectHeldBackBy("delayed", later.ID, job.HeldBackByDelay)
		a.finish(first, job.Outcome{Fault: &job.Fault{Code: "x", Message: "x", Class: job.Retryable}})
		a.expectHeldBackBy("failed", first.Job.ID, job.HeldBackByBackoff)
		second := a.nextJob("the slot is free")
		a.finish(second, job.Outcome{})
		a.expectHeldBackBy("it has ended", second.Job.ID, "")
		a.expectQueueHeldBackBy("a slot is free", "")

		a.submit(engine.Request{Key: "k"})
		keyed := a.nextJob("of a key")
		parked := a.submit(engine.Request{Key: "k"})
		a.expectHeldBackBy("its key runs", parked.ID, job.HeldBackByKey)
		a.finish(keyed, job.Outcome{})
		a.nextJob("of the key again")
		a.startWorker(3)
		a.submit(engine.Request{})
		a.nextJob("with a second worker")
		last := a.submit(engine.Request{})
		a.expectHeldBackBy("max_running jobs run", last.ID, job.HeldBackByMaxRunning)
		a.expectQueueHeldBackBy("max_running jobs run", job.HeldBackByMaxRunning)
	})
}

// A pause through another process appears here within about a second, and so does another
// process's worker.
func TestHeldBackByFollowsOtherProcess(t *testing.T) {
	t.Parallel()
	withSharedStore(t, func(t *testing.T, s *sharedStore) {
		a, b := startHarness(t, s), startHarness(t, s)
		snap := a.submit(engine.Request{})
		b.setPaused(true)
		waitForPoll()
		a.expectHeldBackBy("paused elsewhere", snap.ID, job.HeldBackByPause)
		b.setPaused(false)
		waitForPoll()
		a.expectHeldBackBy("resumed elsewhere", snap.ID, job.HeldBackByNoWorker)
		b.startWorker(1)
		b.nextJob("resumed")
		next := a.submit(engine.Request{})
		waitForPoll()
		a.expectHeldBackBy("the worker there has a job", next.ID, job.HeldBackByTurn)
	})
}
