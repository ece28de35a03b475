package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A loop that takes no op stands still. One that waits for the disk does not.
func TestStalledLoopIsNotASlowDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{lanes: newLanes(), commits: newCommits(func() {})}
		time.Sleep(time.Hour)
		if e.Stalled() {
			t.Error("an idle loop stands still")
		}
		if err := e.lanes.put(&pendingOp{lane: laneUrgent, op: &store.Finish{}}); err != nil {
			t.Fatal(err)
		}
		if e.Stalled() {
			t.Error("a loop stands still at once")
		}
		time.Sleep(maxLoopStall + time.Second)
		if !e.Stalled() {
			t.Error("a loop that takes no op does not stand still")
		}
		e.commits.begin(time.Now())
		if e.Stalled() {
			t.Error("a loop that waits for the disk stands still")
		}
		e.commits.end()
		if !e.Stalled() {
			t.Error("a loop that takes no op after a commit does not stand still")
		}
	})
}
