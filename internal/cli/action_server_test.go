package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/client"
)

// newClient returns a client of the real server.
func newClient(t *testing.T, url string) *client.Client {
	c, err := client.New(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Jobs of a paused queue are selected by flags, cancelled, retried after the queue
// resumes, and deleted. Other jobs are unchanged.
func TestFilteredActionsOnRealServer(t *testing.T) {
	t.Parallel()
	url := startDefaultServer(t)
	newTestEnv(url).want(t, exitOK, "sim is paused\n", "queues", "pause", "sim")
	other := newTestEnv(url)
	other.run(t, "submit", "sim", "{}")

	lines := newTestEnv(url).withInput(strings.Repeat("{\"tokens\":1}\n", 250))
	if code := lines.run(t, "submit", "sim", "--lines", "-", "--metadata", "run=1", "--key", "ann", "--idempotency-key", "import"); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &lines.err)
	}
	again := newTestEnv(url).withInput(strings.Repeat("{\"tokens\":1}\n", 250))
	again.run(t, "submit", "sim", "--lines", "-", "--metadata", "run=1", "--key", "ann", "--idempotency-key", "import")
	if again.out.String() != lines.out.String() || strings.Count(lines.out.String(), "job_") != 250 {
		t.Fatalf("250 lines printed\n%s, and the second time\n%s", &lines.out, &again.out)
	}
	for _, call := range []struct {
		args string
		want string
	}{
		{"cancel --metadata run=1 --metadata x=y --yes", "0 jobs cancelled, or asked to stop\n"},
		{"cancel --metadata run=1 --status queued --created-after 1000000h --yes", "250 jobs cancelled, or asked to stop\n"},
		{"cancel --key ann --yes", "0 jobs cancelled, or asked to stop\n"},
		{"retry --queue sim --yes", "250 jobs to run again\n"},
		{"queues resume sim", "sim is resumed\n"},
	} {
		newTestEnv(url).want(t, exitOK, call.want, strings.Fields(call.args)...)
	}
	c := newClient(t, url)
	for id := range strings.FieldsSeq(lines.out.String() + other.out.String()) {
		if j, err := c.Wait(t.Context(), id); err != nil || j.Status != client.Succeeded {
			t.Fatalf("%s: %+v, %v", id, j, err)
		}
	}
	newTestEnv(url).want(t, exitOK, "250 jobs deleted\n", "delete", "--status", "succeeded", "--key", "ann", "--yes")
	left := newTestEnv(url)
	if left.run(t, "list", "--all", "--json"); strings.Count(left.out.String(), "\n") != 1 || !strings.Contains(left.out.String(), strings.TrimSpace(other.out.String())) {
		t.Errorf("the remaining jobs are\n%s, want %s", &left.out, &other.out)
	}
}

// pausedQueueClient returns a client of a real server whose queue sim is paused.
func pausedQueueClient(t *testing.T) *client.Client {
	c := newClient(t, startDefaultServer(t))
	q, err := c.Pause(t.Context(), "sim")
	if err != nil || !q.Paused {
		t.Fatalf("%+v, %v", q, err)
	}
	return c
}

func submissions(n int, key string) []client.Submission {
	list := make([]client.Submission, n)
	for i := range list {
		list[i] = client.Submission{Queue: "sim", Key: key, Input: map[string]int{"echo": i}}
	}
	return list
}

// A batch stores the valid jobs and refuses the others. An atomic batch stores all or
// none.
func TestBatchesOnRealServer(t *testing.T) {
	t.Parallel()
	c, ctx := pausedQueueClient(t), t.Context()
	jobs := submissions(3, "ann")
	jobs[1].Queue = "nope"
	results, err := c.SubmitBatch(ctx, client.Batch{Jobs: jobs})
	if err != nil || results[0].Job == nil || results[2].Job == nil || results[1].Err == nil {
		t.Fatalf("%+v, %v", results, err)
	}
	if e := results[1].Err; e.Code != client.CodeUnknownQueue || e.Status != 404 || e.Field != "/jobs/1" {
		t.Errorf("%+v", e)
	}
	_, err = c.SubmitBatch(ctx, client.Batch{Jobs: jobs, Atomic: true})
	if client.CodeOf(err) != client.CodeUnknownQueue {
		t.Errorf("an atomic batch with an unknown queue: %v", err)
	}
	jobs[1].Queue = "sim"
	whole := client.Batch{Jobs: jobs, Atomic: true, IdempotencyKey: "once"}
	first, err := c.SubmitBatch(ctx, whole)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.SubmitBatch(ctx, whole)
	if err != nil || fmt.Sprint(ids(first)) != fmt.Sprint(ids(second)) {
		t.Errorf("a repeated batch created %v and %v (%v)", ids(first), ids(second), err)
	}
	wantWaiting(t, ctx, c, 5)
}

func ids(list []client.BatchResult) (all []string) {
	for _, s := range list {
		all = append(all, s.Job.ID)
	}
	return all
}

// wantWaiting checks the number of waiting jobs.
func wantWaiting(t *testing.T, ctx context.Context, c *client.Client, n int64) {
	t.Helper()
	q, err := c.Queue(ctx, "sim")
	if err != nil || q.Counts.Queued != n || q.WaitingBytes < n || q.Limits.PerKey.Waiting != 1000 || q.Limits.MaxBytes != 1<<30 {
		t.Errorf("the queue is %+v, %v", q, err)
	}
}

// When a key has its maximum of waiting jobs, the next one is refused with 429. Other keys
// are not affected.
func TestFullKeyRefusesJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("submits 1,000 jobs")
	}
	t.Parallel()
	c, ctx := pausedQueueClient(t), t.Context()
	if _, err := c.SubmitBatch(ctx, client.Batch{Jobs: submissions(1000, "ann"), Atomic: true}); err != nil {
		t.Fatal(err)
	}
	results, err := c.SubmitBatch(ctx, client.Batch{Jobs: append(submissions(1, "ann"), submissions(1, "ben")...)})
	if err != nil || results[1].Err != nil {
		t.Fatalf("%+v, %v", results, err)
	}
	if e := results[0].Err; e == nil || e.Code != client.CodeKeyFull || e.Status != 429 || e.RetryAfter <= 0 {
		t.Errorf("%+v", e)
	}
	_, err = c.SubmitBatch(ctx, client.Batch{Jobs: append(submissions(1, "ben"), submissions(1, "ann")...), Atomic: true})
	if client.CodeOf(err) != client.CodeKeyFull {
		t.Errorf("an atomic batch with a full key: %v", err)
	}
	wantWaiting(t, ctx, c, 1001)
}
