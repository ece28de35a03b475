package telemetry

import (
	"sync"
	"testing"
)

// What is asked for by many at once is made once, and all get the same.
func TestEachOfAFewIsMadeOnce(t *testing.T) {
	var f smallMap[int, *int]
	var made [3]int // by add, which holds its mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for key := range made {
				if got := f.get(key, func() *int { made[key]++; return &made[key] }); got != &made[key] {
					t.Errorf("another than that of %d", key)
				}
			}
		})
	}
	all.Wait()
	if made != [3]int{1, 1, 1} {
		t.Errorf("made %v times", made)
	}
}
