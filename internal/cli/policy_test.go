package cli

import (
	"reflect"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The client cannot import the server's table of clocks, so its own table must match.
func TestClientSetsEveryClockOfSubmit(t *testing.T) {
	t.Parallel()
	fields := client.Timeouts{}
	for i := range job.Clocks {
		c := &job.Clocks[i]
		if set, want := fields.Set(c.Name, time.Second), c.SubmitField == ""; set != want {
			t.Errorf("client.Timeouts sets %s: %v, want %v", c.Name, set, want)
		}
	}
	for name, d := range reflect.ValueOf(fields).Fields() {
		if d.Int() == 0 {
			t.Errorf("the field %s of client.Timeouts has no clock", name.Name)
		}
	}
}
