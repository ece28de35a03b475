package server

import "testing"

// Little live memory lets the garbage grow further, in proportion, than much does.
func TestThePaceOfTheCollector(t *testing.T) {
	for live, want := range map[uint64]int{0: lazyPace, 4 << 20: lazyPace, 16 << 20: 300, 48 << 20: eagerPace, 4 << 30: eagerPace} {
		if got := paceFor(live); got != want {
			t.Errorf("with %d MiB live the pace is %d %%, want %d", live>>20, got, want)
		}
	}
}
