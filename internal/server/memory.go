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
	garbage    = 40 << 20
	eagerPace  = 100 // percent of what is live: the runtime's own
	lazyPace   = 500
	leastPace  = 25 // or it would do nothing but collect
	paceLooked = time.Second
)

// A server that has grown quiet gives back what a load has left: the next
// collection could be minutes away.
const (
	quietly    = 1 << 20  // bytes allocated between two looks, at most
	worthwhile = 16 << 20 // bytes to give back, at least
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
	m, pace := newMemory(), lazyPace
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m.read()
		// Setting the pace stops the world for a moment: only when it has to change.
		if next := paceFor(m.live, m.stacks); next < pace*9/10 || next > pace*10/9 {
			pace = next
			debug.SetGCPercent(pace)
		}
		if m.idle() {
			debug.FreeOSMemory()
		}
	}
}

// memory is what the runtime says of the process.
type memory struct {
	samples []metrics.Sample

	live, stacks uint64 // bytes that the last collection found
	objects      uint64 // bytes on the heap: live, or garbage by now
	free         uint64 // bytes that hold nothing and are not given back
	allocated    uint64 // bytes, ever
	lately       uint64 // bytes, since the reading before
}

func newMemory() *memory {
	return &memory{samples: []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}}
}

func (m *memory) read() {
	metrics.Read(m.samples)
	before := m.allocated
	for i, to := range []*uint64{&m.live, &m.stacks, &m.objects, &m.free, &m.allocated} {
		*to = m.samples[i].Value.Uint64()
	}
	m.lately = m.allocated - before
}

// idle says that little happens and much could be given back.
func (m *memory) idle() bool {
	return m.lately <= quietly && m.objects+m.free >= m.live+worthwhile
}

// paceFor is the pace for so many live bytes, and so many of stacks. The runtime
// takes its percents of both; the room for garbage is to follow the first alone, or
// thousands of goroutines that wait would double their own weight.
func paceFor(live, stacks uint64) int {
	if live == 0 {
		return lazyPace
	}
	room := min(max(garbage, live*eagerPace/100), live*lazyPace/100)
	return max(int(room*100/(live+stacks)), leastPace)
}
