package job_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestClocksHasARowForEachFieldInOrder(t *testing.T) {
	t.Parallel()
	var timeouts job.Timeouts
	fields := reflect.ValueOf(&timeouts).Elem()
	if len(job.Clocks) != fields.NumField() {
		t.Fatalf("Clocks has %d rows, Timeouts has %d fields", len(job.Clocks), fields.NumField())
	}
	for i, d := range timeouts.All() {
		c, name := &job.Clocks[i], fields.Type().Field(i).Name
		if fields.Field(i).Addr().Interface() != d {
			t.Errorf("All has something else than %s at %d", name, i)
		}
		if strings.ReplaceAll(c.Name, "_", "") != strings.ToLower(name) {
			t.Errorf("the clock of the field %s is called %q", name, c.Name)
		}
	}
}

func TestClocksAllowTheirDefaults(t *testing.T) {
	t.Parallel()
	for i := range job.Clocks {
		c := &job.Clocks[i]
		if !c.Allows(c.Default) {
			t.Errorf("%s is %s by default, which is refused", c.Name, c.Default)
		}
		if !strings.HasSuffix(c.Help, ".") || strings.Contains(c.Help, "\n") {
			t.Errorf("the help of %s is no sentence: %q", c.Name, c.Help)
		}
	}
}

func TestClockRefusesValuesOutOfBounds(t *testing.T) {
	t.Parallel()
	always := job.Clock{Min: time.Second, Max: time.Hour, AlwaysOn: true}
	free := job.Clock{Max: job.MaxDuration}
	late := job.Clock{Min: 2 * time.Minute, Max: time.Hour}
	for _, c := range []struct {
		clock *job.Clock
		s     float64
		ok    bool
	}{
		{&always, 0, false}, {&always, 0.999, false}, {&always, 1, true}, {&always, 3600, true}, {&always, 3600.001, false},
		{&free, 0, true}, {&free, -0.001, false}, {&free, 1e-12, true}, {&free, 1e18, false},
		{&late, 0, true}, {&late, 119, false}, {&late, 120, true},
	} {
		if d, ok := c.clock.FromSeconds(c.s); ok != c.ok || ok && d != job.Seconds(c.s) {
			t.Errorf("%v seconds, of %s: %s, %v", c.s, c.clock.Bounds(), d, ok)
		}
	}
	for clock, want := range map[*job.Clock]string{
		&always: "1 to 3600 seconds", &free: "0 to 31622400 seconds", &late: "120 to 3600 seconds, or 0 to turn it off",
	} {
		if got := clock.Bounds(); got != want {
			t.Errorf("bounds %q, want %q", got, want)
		}
	}
}

// Each failure gives an upstream half as long again to begin. A loss does not, and no clock
// grows past the soft run time.
func TestClocksOfTheBeginningGrowWithFailures(t *testing.T) {
	t.Parallel()
	timeouts := job.Timeouts{Request: 60 * time.Second, FirstOutput: 100 * time.Second, IdleOutput: 60 * time.Second, RunSoft: 290 * time.Second}
	for _, c := range []struct {
		attempt, losses int
		request, first  time.Duration
	}{
		{1, 0, 60 * time.Second, 100 * time.Second},
		{2, 0, 90 * time.Second, 150 * time.Second},
		{2, 1, 60 * time.Second, 100 * time.Second},
		{3, 0, 135 * time.Second, 225 * time.Second},
		{4, 0, 202500 * time.Millisecond, 290 * time.Second},
		{1000, 0, 290 * time.Second, 290 * time.Second},
	} {
		j := job.Job{Attempt: c.attempt, Losses: c.losses, Policy: job.Policy{Timeouts: timeouts}}
		got := j.AttemptTimeouts()
		if got.Request != c.request || got.FirstOutput != c.first || got.IdleOutput != timeouts.IdleOutput {
			t.Errorf("attempt %d after %d losses: %v and %v, want %v and %v", c.attempt, c.losses, got.Request, got.FirstOutput, c.request, c.first)
		}
	}
	unbounded := job.Job{Attempt: 1000, Policy: job.Policy{Timeouts: job.Timeouts{FirstOutput: time.Hour}}}
	if got := unbounded.AttemptTimeouts(); got.FirstOutput != job.MaxDuration || got.Request != 0 {
		t.Errorf("without a soft run time: %+v", got)
	}
}
