package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// quickLeases is a configuration whose leases last two seconds.
const quickLeases = `
queues:
  sim:
    timeouts:
      lease_s: 2
`

// A server may stall for longer than a lease, for example while a laptop sleeps or a machine
// swaps. It then continues its jobs: no lease is lost and no job runs twice.
func TestStallBeyondLeaseLosesNoJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 17 s: it builds the server and stalls it for longer than a lease")
	}
	t.Parallel()
	dir := t.TempDir()
	in, err := newServerProcess(t.Context(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(quickLeases), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := in.start(t.Context(), "--config", config); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.kill() }()
	c, err := in.client()
	if err != nil {
		t.Fatal(err)
	}
	ids := submitLongJobs(t, c, 20)
	if err := in.suspend(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		j, err := c.Wait(ctx, id)
		cancel()
		if err != nil || j.Status != client.Succeeded || j.Attempt != 1 {
			t.Errorf("%s: %+v, %v; want it succeeded at its first attempt", id, j, err)
			continue
		}
		checkOneAttempt(t, c, id)
	}
}

// submitLongJobs submits jobs that write output all the time and last longer than the stall.
func submitLongJobs(t *testing.T, c *client.Client, n int) (ids []string) {
	t.Helper()
	for range n {
		j, err := c.Submit(t.Context(), client.Submission{Queue: "sim", Input: json.RawMessage(`{"duration_ms":9000,"tokens":90}`)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, j.ID)
	}
	return ids
}

// checkOneAttempt checks that a job's output has no second attempt.
func checkOneAttempt(t *testing.T, c *client.Client, id string) {
	t.Helper()
	out, err := c.Output(t.Context(), id, 0, 0)
	if err != nil {
		t.Error(err)
		return
	}
	for _, e := range out.Entries {
		if e.Kind == client.KindAttempt {
			t.Errorf("%s has a second attempt: entry %d", id, e.Seq)
		}
	}
}
