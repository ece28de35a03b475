package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
)

// smallMap holds what is made once for each of a smallMap keys, and looked up with every request
// and every job. Its zero value is empty.
type smallMap[K comparable, V any] struct {
	all atomic.Pointer[map[K]V] // never changed: one more is a new map
	mu  sync.Mutex              // held by whoever makes it
}

// get finds what was made for a key, or has it made.
func (f *smallMap[K, V]) get(key K, make func() V) V {
	if all := f.all.Load(); all != nil {
		if v, ok := (*all)[key]; ok {
			return v
		}
	}
	return f.add(key, make)
}

func (f *smallMap[K, V]) add(key K, make func() V) V {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[K]V{}
	if before := f.all.Load(); before != nil {
		if v, ok := (*before)[key]; ok {
			return v
		}
		all = maps.Clone(*before)
	}
	all[key] = make()
	f.all.Store(&all)
	return all[key]
}
