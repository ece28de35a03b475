package postgres

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// fakeClocks is a clock whose local clock and database are moved by the test.
type fakeClocks struct {
	*clock
	t               *testing.T
	local, database time.Time
}

func newFakeClocks(t *testing.T) *fakeClocks {
	f := &fakeClocks{clock: newClock(nil), t: t, local: time.Unix(1_900_000_000, 0), database: time.Unix(1_900_007_000, 0)}
	f.clock.local = func() time.Time { return f.local }
	return f
}

func (f *fakeClocks) advance(d time.Duration) {
	f.local, f.database = f.local.Add(d), f.database.Add(d)
}

// read reads the database's clock: the answer takes some time, of which a part is before the
// reading.
func (f *fakeClocks) read(before, after time.Duration) {
	asked := f.local
	f.advance(before)
	reading := f.database
	f.advance(after)
	f.note(reading, asked, f.local)
}

func (f *fakeClocks) wantError(want time.Duration) {
	f.t.Helper()
	if off := f.now().Sub(f.database); off != want {
		f.t.Errorf("the clock differs by %v, want %v", off, want)
	}
}

func TestClockFollowsDatabase(t *testing.T) {
	t.Parallel()
	f := newFakeClocks(t)
	f.read(time.Millisecond, time.Millisecond)
	f.wantError(0)
	f.advance(time.Hour)
	f.wantError(0)
}

func TestClockKeepsBestReading(t *testing.T) {
	t.Parallel()
	f := newFakeClocks(t)
	f.read(time.Millisecond, time.Millisecond)
	// The batch waited for a lock before it read the clock.
	f.read(2*time.Second, time.Millisecond)
	f.wantError(0)
	f.advance(time.Minute)
	f.read(2*time.Second, time.Millisecond)
	f.wantError(0)
	// After a minute a reading that is right to 5 ms is better than the first one.
	f.read(10*time.Millisecond, 0)
	f.wantError(5 * time.Millisecond)
	f.read(time.Millisecond, time.Millisecond)
	f.wantError(0)
}

func TestClockFollowsDrift(t *testing.T) {
	t.Parallel()
	f := newFakeClocks(t)
	for range 1000 {
		f.read(time.Millisecond, time.Millisecond)
		f.advance(10 * time.Second)
		f.database = f.database.Add(time.Millisecond) // 100 ppm
		if off := f.now().Sub(f.database).Abs(); off > 10*time.Millisecond {
			t.Fatalf("the clock differs by %v", off)
		}
	}
}

func TestClockGoesForwardWithDatabase(t *testing.T) {
	t.Parallel()
	f := newFakeClocks(t)
	f.read(time.Millisecond, time.Millisecond)
	f.database = f.database.Add(time.Hour)
	f.read(5*time.Second, 5*time.Second)
	f.wantError(0)
}

// A clock that stood still for an hour would tell the engine each second that it has jumped, and no
// lease would be swept.
func TestClockFollowsLargeStepBack(t *testing.T) {
	t.Parallel()
	f := newFakeClocks(t)
	f.read(time.Millisecond, time.Millisecond)
	f.wantError(0)
	f.database = f.database.Add(-time.Hour)
	for range 10 {
		f.read(time.Millisecond, time.Millisecond)
		f.wantError(0)
		f.advance(time.Second)
	}
}

func TestClockHardlyGoesBack(t *testing.T) {
	t.Parallel()
	f := newFakeClocks(t)
	f.read(time.Millisecond, time.Millisecond)
	last := f.now()
	f.database = f.database.Add(-maxStand)
	for i := range 200 {
		f.read(time.Millisecond, time.Millisecond)
		f.advance(time.Second)
		now := f.now()
		if back := last.Sub(now); back > store.ClockTolerance {
			t.Fatalf("after %d s the clock went back by %v", i, back)
		}
		last = now
	}
	f.wantError(0)
}
