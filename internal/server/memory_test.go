package server

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// The smaller the live heap, the higher the percent. Stacks do not allow more garbage.
func TestGCPercentFor(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		live, stacks uint64
		want         int
	}{
		{0, 0, maxGCPercent}, {4 * mib, 0, maxGCPercent}, {20 * mib, 0, 200}, {48 * mib, 0, defaultGCPercent}, {4096 * mib, 0, defaultGCPercent},
		{48 * mib, 48 * mib, defaultGCPercent / 2}, {20 * mib, 20 * mib, 100}, {4096 * mib, 4096 * mib, defaultGCPercent / 2}, {mib, 4096 * mib, minGCPercent},
	} {
		if got := gcPercentFor(tt.live, tt.stacks); got != tt.want {
			t.Errorf("with %d MiB live and %d of stacks the GC percent is %d, want %d", tt.live/mib, tt.stacks/mib, got, tt.want)
		}
	}
}

func TestIdleProcessReturnsMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		rule string
		m    memory
		want bool
	}{
		{"garbage of a load that is over", memory{live: 10 * mib, objects: 30 * mib, lately: 1000}, true},
		{"unused after a load", memory{live: 10 * mib, objects: 10 * mib, free: 20 * mib}, true},
		{"nothing worth the work", memory{live: 10 * mib, objects: 12 * mib, free: 2 * mib}, false},
		{"a load that goes on", memory{live: 10 * mib, objects: 90 * mib, lately: 5 * mib}, false},
		{"less on the heap than the last collection found", memory{live: 40 * mib, objects: 10 * mib}, false},
	} {
		if got := tt.m.idle(); got != tt.want {
			t.Errorf("%s: %t", tt.rule, got)
		}
	}
}

// The runtime provides every metric that memory reads.
func TestMemoryIsRead(t *testing.T) {
	m := newMemory()
	m.read()
	kept := make([]byte, 1<<20)
	m.read()
	if m.objects < 1<<20 || m.lately < 1<<20 || m.lately > m.allocated {
		t.Errorf("it read %+v", m)
	}
	runtime.KeepAlive(kept)
}

// Small jobs beside a small live heap: what one allocates, with GOGC=100 and with the
// percent that is set for such a heap.
func BenchmarkGCPercent(b *testing.B) {
	const liveBytes, jobBytes = 4 << 20, 32 << 10
	live := make([]*[1024]byte, liveBytes/1024)
	for i := range live {
		live[i] = new([1024]byte)
	}
	for name, percent := range map[string]int{"default": defaultGCPercent, "tuned": gcPercentFor(liveBytes, 1<<20)} {
		b.Run(name, func(b *testing.B) {
			defer debug.SetGCPercent(debug.SetGCPercent(percent))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				for range jobBytes / 512 {
					sink = make([]byte, 512)
				}
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.NumGC-before.NumGC)*1000/float64(b.N), "collections/1000-jobs")
		})
	}
	runtime.KeepAlive(live)
}

var sink []byte
