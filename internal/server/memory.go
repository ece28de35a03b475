package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The collector's pace. A server at rest holds a few megabytes, and with the
// runtime's own pace a burst of small jobs would make it collect dozens of times a
// second. So the garbage may grow to some megabytes before it is collected,
// whatever little is live; once much is, it may grow by as much again, as usual.
const (
	garbage    = 48 << 20
	eagerPace  = 100 // percent of what is live: the runtime's own
	lazyPace   = 500
	paceLooked = time.Second
)

// paceCollector sets the collector's pace by what is live, until ctx ends. It
// leaves a process alone whose environment has set the pace.
func paceCollector(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	before := debug.SetGCPercent(lazyPace)
	defer debug.SetGCPercent(before)
	tick := time.NewTicker(paceLooked)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for pace := lazyPace; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(live)
		// Setting the pace stops the world for a moment: only when it has to change much.
		if next := paceFor(live[0].Value.Uint64()); next < pace*3/4 || next > pace*4/3 {
			pace = next
			debug.SetGCPercent(pace)
		}
	}
}

// paceFor is the pace for so many live bytes.
func paceFor(live uint64) int {
	return min(max(int(garbage*100/max(live, 1)), eagerPace), lazyPace)
}
