package server

import (
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// resourceSet is the resources of all executors; see [exec.Resources].
type resourceSet []exec.Resources

// resourcesOf returns the resources of the executors, each once.
func resourcesOf(executors map[string]exec.Executor) resourceSet {
	var set resourceSet
	seen := map[exec.Resources]bool{}
	for _, e := range executors {
		l, ok := e.(exec.Limited)
		if !ok || seen[l.Resources()] {
			continue
		}
		seen[l.Resources()] = true
		set = append(set, l.Resources())
	}
	return set
}

// limits returns the function for [engine.Config.ResourceLimits]; nil without resources.
func (s resourceSet) limits() func() map[string]int {
	switch len(s) {
	case 0:
		return nil
	case 1:
		return s[0].Limits
	}
	return func() map[string]int {
		all := s[0].Limits()
		for _, r := range s[1:] {
			for name, n := range r.Limits() {
				if other, known := all[name]; !known || n < other {
					all[name] = n
				}
			}
		}
		return all
	}
}

// follow makes the engine follow the limits.
func (s resourceSet) follow(e *engine.Engine) {
	for _, r := range s {
		r.OnRoom(e.RoomChanged)
	}
}
