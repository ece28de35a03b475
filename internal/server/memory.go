package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How often to collect garbage. An idle server has a live heap of a few megabytes. With
// GOGC=100 a burst of small jobs collects it dozens of times a second. So garbage may grow
// to minGarbage bytes even if the live heap is smaller; above that it may grow by the size
// of the live heap, as with GOGC=100. BenchmarkGCPercent shows the gain.
const (
	minGarbage       = 40 << 20
	defaultGCPercent = 100 // percent of the live heap: GOGC's default
	maxGCPercent     = 500
	minGCPercent     = 25 // with less, collecting would take all the time
	tuneInterval     = time.Second
)

// When to return memory to the system. After a load the next collection may be minutes
// away, and the process would keep its memory until then.
const (
	idleAllocation = 1 << 20  // bytes allocated in a tuneInterval: an idle process allocates no more
	minReturned    = 16 << 20 // bytes: returning less is not worth a collection
)

// tuneGC sets the GC percent by the size of the live heap, until ctx ends. It does
// nothing when GOGC is set in the environment.
func tuneGC(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	before := debug.SetGCPercent(maxGCPercent)
	defer debug.SetGCPercent(before)
	tick := time.NewTicker(tuneInterval)
	defer tick.Stop()
	m, percent := newMemory(), maxGCPercent
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m.read()
		// SetGCPercent stops the world, so small changes are not made.
		if next := gcPercentFor(m.live, m.stacks); next < percent*9/10 || next > percent*10/9 {
			percent = next
			debug.SetGCPercent(percent)
		}
		if m.idle() {
			debug.FreeOSMemory()
		}
	}
}

// memory holds the runtime's metrics of memory.
type memory struct {
	samples []metrics.Sample

	live, stacks uint64 // bytes that the last collection found in use
	objects      uint64 // bytes on the heap: live objects and garbage
	free         uint64 // unused bytes that are not returned to the system
	allocated    uint64 // bytes since the start
	lately       uint64 // bytes since the previous read
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

// idle reports whether the process allocates little and holds much unused memory.
func (m *memory) idle() bool {
	return m.lately <= idleAllocation && m.objects+m.free >= m.live+minReturned
}

// gcPercentFor returns the GC percent for a live heap and stacks of so many bytes. The
// runtime applies the percent to their sum. Here the garbage follows the heap alone: else
// the stacks of thousands of waiting goroutines would allow as much garbage again.
func gcPercentFor(live, stacks uint64) int {
	if live == 0 {
		return maxGCPercent
	}
	allowed := min(max(minGarbage, live*defaultGCPercent/100), live*maxGCPercent/100)
	return max(int(allowed*100/(live+stacks)), minGCPercent)
}
