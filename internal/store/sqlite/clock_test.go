package sqlite

import (
	"testing"
	"testing/synctest"
	"time"
)

// The clock counts time asleep, and never goes back.
func TestClockCountsSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asleep := time.Hour // before the start
		c := newClock(func() time.Duration { return asleep })
		began := c.now()
		passed := func(want time.Duration) {
			t.Helper()
			if got := c.now().Sub(began); got != want {
				t.Errorf("the clock advanced by %v, want %v", got, want)
			}
		}
		passed(0)
		time.Sleep(time.Minute)
		passed(time.Minute)
		asleep += 10 * time.Minute
		time.Sleep(sleepCheckInterval)
		passed(11*time.Minute + sleepCheckInterval)
		asleep += minSleep / 2 // an error of measurement
		time.Sleep(time.Minute)
		passed(12*time.Minute + sleepCheckInterval)
		asleep -= time.Second
		time.Sleep(time.Minute)
		passed(13*time.Minute + sleepCheckInterval)
	})
}
