package telemetry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func notAway() bool { return false }

func TestLatestReadsOncePerInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewReads(notAway)
		defer r.Close()
		reads := 0
		get := Latest(r, 15*time.Second, func(context.Context) (int, error) { reads++; return reads, nil })
		for range 3 {
			if v, err := get(t.Context()); v != 1 || err != nil {
				t.Errorf("within the interval: %d, %v", v, err)
			}
		}
		time.Sleep(15 * time.Second)
		if v, err := get(t.Context()); v != 2 || err != nil {
			t.Errorf("after the interval: %d, %v", v, err)
		}
	})
}

// A scrape waits for a hanging read once, and shows the last answer for a minute.
func TestLatestDoesNotWaitForHangingRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewReads(notAway)
		hangs := false
		get := Latest(r, 0, func(ctx context.Context) (int, error) {
			if hangs {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 7, nil
		})
		if v, err := get(t.Context()); v != 7 || err != nil {
			t.Fatalf("%d, %v", v, err)
		}
		hangs = true
		for i, want := range []time.Duration{readPatience, 0, 0} {
			began := time.Now()
			if v, err := get(t.Context()); v != 7 || err != nil || time.Since(began) != want {
				t.Errorf("scrape %d: %d, %v after %v, want 7 after %v", i, v, err, time.Since(began), want)
			}
		}
		time.Sleep(readKept)
		if v, err := get(t.Context()); !errors.Is(err, errNoAnswer) {
			t.Errorf("after a minute without an answer: %d, %v", v, err)
		}
		r.Close() // ends the read that hangs, or the test would not end
	})
}

func TestNoReadBeginsWhileDatabaseIsAwayOrAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away, reads := true, 0
		r := NewReads(func() bool { return away })
		get := Latest(r, 0, func(context.Context) (int, error) { reads++; return 0, nil })
		began := time.Now()
		if _, err := get(t.Context()); !errors.Is(err, errNoAnswer) || reads != 0 || time.Since(began) != 0 {
			t.Errorf("while it is away: %v, %d reads, %v", err, reads, time.Since(began))
		}
		away = false
		if _, err := get(t.Context()); err != nil || reads != 1 {
			t.Errorf("when it is back: %v, %d reads", err, reads)
		}
		r.Close()
		if _, err := get(t.Context()); err != nil || reads != 1 {
			t.Errorf("after a close: %v, %d reads", err, reads)
		}
	})
}
