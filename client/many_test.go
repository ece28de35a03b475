package client

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestChangeAllSendsFilter(t *testing.T) {
	t.Parallel()
	empty := ""
	for _, tt := range []struct {
		call func(*Client, context.Context, Filter) (int, error)
		f    Filter
		want string
	}{
		{(*Client).CancelAll, Filter{}, `/v1/jobs/cancel {}`},
		{(*Client).RetryAll, Filter{Queue: "sim", Status: Failed, ErrorCode: "upstream_500"}, `/v1/jobs/retry {"queue":"sim","status":"failed","error_code":"upstream_500"}`},
		{(*Client).DeleteAll, Filter{All: true}, `/v1/jobs/delete {"all":true}`},
		{
			(*Client).DeleteAll, Filter{Key: &empty, CreatedAfter: time.Unix(0, 5e8), CreatedBefore: time.Unix(3600, 0), Metadata: map[string]string{"a": "b"}},
			`/v1/jobs/delete {"key":"","created_after":"1970-01-01T00:00:00.5Z","created_before":"1970-01-01T01:00:00Z","metadata":{"a":"b"}}`,
		},
	} {
		var h recorder
		done, err := tt.call(h.clientFor(t, `{"object":"count","done":17}`), t.Context(), tt.f)
		if err != nil || done != 17 || h.bodies[0] != "POST "+tt.want {
			t.Errorf("%d, %v; sent %s, want %s", done, err, h.bodies, tt.want)
		}
	}
}

// A change that the server did not finish is requested again while it makes progress.
func TestChangeAllRepeatsUntilDone(t *testing.T) {
	t.Parallel()
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	h, n := script(answer(`{"done":5,"more":true}`), answer(`{"done":7,"more":true}`), answer(`{"done":1}`))
	if done, err := newTestClient(t, h.ServeHTTP).DeleteAll(t.Context(), Filter{All: true}); done != 13 || err != nil || *n != 3 {
		t.Errorf("%d done in %d calls, %v", done, *n, err)
	}
	h, _ = script(answer(`{"done":5,"more":true}`), answer(`{"done":0,"more":true}`))
	done, err := newTestClient(t, h.ServeHTTP).CancelAll(t.Context(), Filter{All: true})
	if wantCode(t, err, CodeOverloaded); done != 5 {
		t.Errorf("%d done", done)
	}
	h, _ = script(answer(`{"done":5,"more":true}`), problemHandler(503, CodeUnavailable, ""))
	done, err = newTestClient(t, h.ServeHTTP).CancelAll(t.Context(), Filter{All: true})
	if wantCode(t, err, CodeUnavailable); done != 5 {
		t.Errorf("%d done", done)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	var h recorder
	c := h.clientFor(t, `{"name":"sim","paused":true,"waiting_bytes":7,"counts":{"parked":2},"limits":{"max_running":1,"max_bytes":5000000000,"per_key":{"running":2,"waiting":3}}}`)
	q, err := c.Pause(t.Context(), "sim")
	want := QueueLimits{MaxRunning: 1, MaxBytes: 5_000_000_000, PerKey: KeyLimits{Running: 2, Waiting: 3}}
	if err != nil || !q.Paused || q.WaitingBytes != 7 || q.Counts.Parked != 2 || q.Limits != want {
		t.Errorf("%+v, %v", q, err)
	}
	if _, err := c.Resume(t.Context(), "a/b"); err != nil || h.bodies[0] != "POST /v1/queues/sim/pause " || h.bodies[1] != "POST /v1/queues/a/b/resume " {
		t.Errorf("requested %q, %v", h.bodies, err)
	}
}

// List sends every field of its filter.
func TestListSendsFilter(t *testing.T) {
	t.Parallel()
	var query string
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		_, _ = io.WriteString(w, `{"data":[]}`)
	})
	o := ListOptions{Filter: Filter{ErrorCode: "x", CreatedAfter: time.Unix(0, 0), CreatedBefore: time.Unix(1, 1), Metadata: map[string]string{"a b": "1", "c": ""}}}
	if _, err := c.Page(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	want := "created_after=1970-01-01T00%3A00%3A00Z&created_before=1970-01-01T00%3A00%3A01.000000001Z&error_code=x&metadata.a+b=1&metadata.c="
	if query != want {
		t.Errorf("the query is %s, want %s", query, want)
	}
}
