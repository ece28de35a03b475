package chat

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestAUserIsHereForAMinuteAfterEachHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p presence
		ann, bob := job.Owner{User: "ann"}, job.Owner{User: "bob"}
		if p.here(ann) {
			t.Fatal("ann is here before she said so")
		}
		for range 3 {
			if err := p.beat(ann); err != nil {
				t.Fatal(err)
			}
			time.Sleep(stay - 1)
			if !p.here(ann) || p.here(bob) {
				t.Fatal("ann is gone too soon, or bob is here")
			}
		}
		time.Sleep(time.Nanosecond)
		if p.here(ann) {
			t.Fatal("ann is still here after a minute of silence")
		}
	})
}

func TestOnlySoManyUsersAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p presence
		for i := range maxPresent {
			if err := p.beat(job.Owner{User: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		one, more := job.Owner{User: "0"}, job.Owner{User: "more"}
		if err := p.beat(more); job.CodeOf(err) != job.Overloaded {
			t.Fatalf("one more user: %v", err)
		}
		time.Sleep(stay / 2)
		if err := p.beat(one); err != nil {
			t.Fatalf("a user who is here already: %v", err)
		}
		time.Sleep(stay / 2)
		if err := p.beat(more); err != nil || len(p.until) != 2 {
			t.Fatalf("error %v, %d are remembered once the others are gone", err, len(p.until))
		}
	})
}
