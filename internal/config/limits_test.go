package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A queue's own settings are within its limits: a job that asks for nothing must pass.
func TestQueueIsWithinItsLimits(t *testing.T) {
	t.Parallel()
	for limits, want := range map[string]string{
		"{max_attempts: 3}":           "queues.sim.max_attempts: this is 4, and the queue's own limits allow at most 3: a job that asks for nothing must be within them; change this or the limit",
		"{backoff_s: 5}":              "queues.sim.retry.backoff_s",
		"{retry_for_s: 5}":            "queues.sim.retry.for_s",
		"{timeouts: {run_hard_s: 5}}": "queues.sim.timeouts.run_hard_s: this is 0 (none), and the queue's own limits allow at most 5 s",
		"{timeouts: {abandon_s: 5}}":  "queues.sim.timeouts.abandon_s",
		"{priority: 6}":               "queues.sim.limits.priority: this must be 0 to 5, the priority of a job that asks for none, not 6",
		"{priority: 5}":               "",
		"{delay_s: 5}":                "",
		"{max_attempts: 4}":           "",
	} {
		file := filepath.Join(t.TempDir(), "meanwhile.yaml")
		if err := os.WriteFile(file, []byte("queues: {sim: {limits: "+limits+"}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(Sources{File: file})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", limits, err)
		}
	}
}
