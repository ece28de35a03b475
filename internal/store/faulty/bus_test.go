package faulty

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/bus"
)

func TestBusLosesDoublesAndDelaysNotices(t *testing.T) {
	t.Parallel()
	const sent = 1000
	for rule, c := range map[string]struct {
		set       *Bus
		low, high int // bounds of the notices that arrive within a second
		end       int // notices that arrive in the end; -1 for any number
	}{
		"no faults": {&Bus{}, sent, sent, sent},
		"all lost":  {&Bus{LostPercent: 100}, 0, 0, 0},
		"some lost": {&Bus{LostPercent: 50}, sent / 3, sent * 2 / 3, -1},
		"all twice": {&Bus{DoubledPercent: 100}, 2 * sent, 2 * sent, 2 * sent},
		"late":      {&Bus{LatePercent: 100, MaxDelay: 10 * time.Second}, 1, sent / 3, sent},
	} {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := c.set
				n.Inner = &bus.Local{}
				got := make(chan bus.Notice, 3*sent)
				receiver := n.Join(func(notice bus.Notice) { got <- notice })
				sender := n.Join(func(bus.Notice) {})
				for range sent {
					sender.Publish(bus.Notice{Queues: []string{"q"}})
				}
				time.Sleep(time.Second)
				if len(got) < c.low || len(got) > c.high {
					t.Errorf("%d of %d arrived soon", len(got), sent)
				}
				time.Sleep(time.Minute)
				if c.end >= 0 && len(got) != c.end {
					t.Errorf("%d of %d arrived", len(got), sent)
				}
				receiver.Leave()
				sender.Publish(bus.Notice{})
				if before := len(got); c.end >= 0 && before != c.end {
					t.Error("a member that has left got a notice")
				}
			})
		})
	}
}

func TestSlowReadsAndWrongClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wrong := time.Hour
		s := New(&inner{}, Plan{
			Read:  SlowReads(map[string]time.Duration{"Counts": 3 * time.Second}),
			Clock: func(now time.Time) time.Time { return now.Add(wrong) },
		})
		began := time.Now()
		if _, err := s.Counts(t.Context()); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("a slow read took %s: %v", time.Since(began), err)
		}
		if at := s.Now(); time.Until(at) != time.Hour {
			t.Errorf("it is %s", at)
		}
	})
}
