package server

import (
	"runtime"
	"testing"
)

// Little live memory lets the garbage grow further, in proportion, than much does,
// and stacks do not count as a reason for more of it.
func TestThePaceOfTheCollector(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		live, stacks uint64
		want         int
	}{
		{0, 0, lazyPace}, {4 * mib, 0, lazyPace}, {20 * mib, 0, 200}, {48 * mib, 0, eagerPace}, {4096 * mib, 0, eagerPace},
		{48 * mib, 48 * mib, eagerPace / 2}, {20 * mib, 20 * mib, 100}, {4096 * mib, 4096 * mib, eagerPace / 2}, {mib, 4096 * mib, leastPace},
	} {
		if got := paceFor(tt.live, tt.stacks); got != tt.want {
			t.Errorf("with %d MiB live and %d of stacks the pace is %d %%, want %d", tt.live/mib, tt.stacks/mib, got, tt.want)
		}
	}
}

func TestWhenMemoryIsGivenBack(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		rule string
		m    memory
		want bool
	}{
		{"garbage of a load that is over", memory{live: 10 * mib, objects: 30 * mib, lately: 1000}, true},
		{"room of a load that is over", memory{live: 10 * mib, objects: 10 * mib, free: 20 * mib}, true},
		{"nothing worth the work", memory{live: 10 * mib, objects: 12 * mib, free: 2 * mib}, false},
		{"a load that goes on", memory{live: 10 * mib, objects: 90 * mib, lately: 5 * mib}, false},
		{"less on the heap than the last collection found", memory{live: 40 * mib, objects: 10 * mib}, false},
	} {
		if got := tt.m.idle(); got != tt.want {
			t.Errorf("%s: %t", tt.rule, got)
		}
	}
}

// The runtime tells all that is asked of it.
func TestTheMemoryIsRead(t *testing.T) {
	m := newMemory()
	m.read()
	kept := make([]byte, 1<<20)
	m.read()
	if m.objects < 1<<20 || m.lately < 1<<20 || m.lately > m.allocated {
		t.Errorf("it read %+v", m)
	}
	runtime.KeepAlive(kept)
}
