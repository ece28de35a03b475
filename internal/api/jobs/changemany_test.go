package jobs

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// All jobs that the body selects are changed, and the response has their number.
func TestChangeManyReportsCount(t *testing.T) {
	t.Parallel()
	ann := job.Owner{User: "ann"}
	for _, tt := range []struct {
		path, body string
		verb       engine.Verb
		filter     job.Filter
	}{
		{"/cancel", `{"all":true}`, engine.CancelAll, job.Filter{Owner: ann}},
		{"/retry", `{"queue":"sim","status":"failed","error_code":"upstream_500"}`, engine.RetryAll, job.Filter{Owner: ann, Queue: "sim", Status: job.Failed, ErrorCode: "upstream_500"}},
		{"/delete", `{"created_before":"2030-01-31T09:00:00Z","metadata":{"a":"b"}}`, engine.DeleteAll, job.Filter{Owner: ann, CreatedBefore: time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC), Metadata: map[string]string{"a": "b"}}},
	} {
		f := newFake(t)
		f.done = 17
		w := f.ask("POST", "/v1/jobs"+tt.path, tt.body, "X-User-ID", "ann")
		if w.Code != 200 || w.Body.String() != `{"object":"count","done":17}` || f.verb != tt.verb || !reflect.DeepEqual(f.filter, tt.filter) {
			t.Errorf("%s %s: %d %s, verb %d of %+v", tt.path, tt.body, w.Code, w.Body, f.verb, f.filter)
		}
	}
}

// Only an explicit "" selects the empty key.
func TestChangeManySelectsEmptyKey(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.ask("POST", "/v1/jobs/cancel", `{"key":""}`)
	if len(f.calls) != 1 || f.filter.Key == nil || *f.filter.Key != "" {
		t.Errorf("%v %+v", f.calls, f.filter)
	}
}

// When the time runs out or the server stops, the response has the number so far, and
// more.
func TestChangeManyStopsAtTimeout(t *testing.T) {
	t.Parallel()
	for _, stops := range []time.Duration{time.Hour, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.done = 3
			f.waits = func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}
			stopping, stop := context.WithCancel(t.Context())
			timer := time.AfterFunc(stops, stop)
			defer timer.Stop()
			began, w := time.Now(), newRecorder()
			f.handlerUntil(stopping).ServeHTTP(w, request("POST", "/v1/jobs/delete", `{"all":true}`))
			if w.Code != 200 || w.text() != `{"object":"count","done":3,"more":true}` {
				t.Errorf("%d %s", w.Code, w.text())
			}
			if took := time.Since(began); took != min(stops, changeTimeout) {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// An error of the engine is the response, even after some jobs were changed.
func TestRefusedChangeManyIsAnError(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.done, f.err = 3, job.Errorf(job.Unavailable, "the store is away")
	w := f.ask("POST", "/v1/jobs/cancel", `{"all":true}`)
	checkProblem(t, "refused", w.Code, w.Body.Bytes(), 503, job.Unavailable, "")
}

// A queue is paused and resumed by its name, and the response shows the queue.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	for path, paused := range map[string]bool{"pause": true, "resume": false} {
		for _, body := range []string{"", "{}"} {
			f := newFake(t)
			w := f.ask("POST", "/v1/queues/sim/"+path, body)
			if f.paused == nil || *f.paused != paused || w.Code != 200 {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
			if body == "" && paused {
				checkGolden(t, "queue_paused.json", w.Body.Bytes())
			}
		}
	}
	f := newFake(t)
	f.err = job.Errorf(job.UnknownQueue, "there is no queue")
	w := f.ask("POST", "/v1/queues/nope/pause", "")
	checkProblem(t, "an unknown queue", w.Code, w.Body.Bytes(), 404, job.UnknownQueue, "")
}
