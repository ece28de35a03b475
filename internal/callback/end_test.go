package callback

import (
	"reflect"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func endedJob() store.End {
	return store.End{
		Job: job.Job{
			ID: job.ID{1}, Owner: job.Owner{Tenant: "shop", User: "ann"}, Queue: "sim", State: job.Succeeded, Revision: 3,
			FinishedAt: time.UnixMilli(1_900_000_000_123), Policy: job.Policy{Keep: job.Keep{Failed: time.Hour, Others: time.Minute}},
			Refs: []string{
				reference{events: job.AllEvents, url: "https://A.example/x?y=1", secretID: "whe_s"}.String(),
				"conversation x",
				reference{events: job.AllEvents, endpoint: "whe_e"}.String(),
				reference{events: eventsOf("job.failed"), endpoint: "whe_f"}.String(),
			},
		},
		Result: &job.Result{ContentType: "application/json", Body: []byte(`{"a":1}`)},
	}
}

func eventsOf(names ...string) job.Events {
	set, err := job.ParseEvents(names)
	if err != nil {
		panic(err)
	}
	return set
}

func TestEachEndHasOneDeliveryForEachReceiver(t *testing.T) {
	t.Parallel()
	end := endedJob()
	made := AtEnd("")(end).Jobs
	if len(made) != 2 {
		t.Fatalf("%d deliveries, want one for the URL and one for the endpoint that takes the event", len(made))
	}
	for i, key := range []string{"https://A.example", "whe_e"} {
		j := &made[i].Job
		if j.Queue != job.CallbackQueue || j.Owner != end.Job.Owner || j.Key != key || j.Policy.Keep != end.Job.Policy.Keep || !j.ID.Time().Equal(end.Job.FinishedAt) {
			t.Errorf("the delivery is %+v", j)
		}
	}
	if made[0].Job.ID == made[1].Job.ID {
		t.Error("two receivers have one delivery")
	}
	if again := AtEnd("")(end).Jobs; !reflect.DeepEqual(again, made) {
		t.Errorf("a repeated transaction makes other jobs: %+v", again)
	}
	// A prune calls it without the result.
	without := end
	without.Result = nil
	if again := AtEnd("")(without).Jobs; again[0].Job.ID != made[0].Job.ID {
		t.Error("the id depends on the result")
	}
	later := end
	later.Job.Revision++
	if next := AtEnd("")(later).Jobs; next[0].Job.ID == made[0].Job.ID {
		t.Error("the next end has the same delivery")
	}
	retried := end
	retried.Job.State = job.Queued
	if f := AtEnd("")(retried); len(f.Jobs) != 0 || len(f.Rows) != 0 {
		t.Errorf("a retry makes %+v", f)
	}
}

func TestReferencesAreReadAsWritten(t *testing.T) {
	t.Parallel()
	for _, r := range []reference{
		{events: 1, url: "http://a.example/?x=%20"},
		{events: 15, url: "https://a.example", secretID: "whe_1"},
		{events: 8, endpoint: "whe_2"},
	} {
		if got, ok := parseReference(r.String()); !ok || got != r {
			t.Errorf("%+v is read as %+v, %v", r, got, ok)
		}
	}
	for _, text := range []string{"", "conversation x", "callback", "callback x - http://a", "callback 1 -"} {
		if r, ok := parseReference(text); ok {
			t.Errorf("%q is read as %+v", text, r)
		}
	}
}
