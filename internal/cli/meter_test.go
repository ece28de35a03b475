package cli

import (
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// The line about a job says what its state is, in at most the given columns.
func TestMeter(t *testing.T) {
	t.Parallel()
	three, zero, left := 3, 0, 75.0
	for _, tt := range []struct {
		rule  string
		job   client.Job
		width int
		want  string
	}{
		{"a queued job before the first answer", client.Job{Status: client.Queued}, 40, "- queued"},
		{"its place and the estimate", client.Job{Status: client.Queued, QueuePosition: &three, EstimatedTimeSeconds: &left}, 60, "- queued, 3 before it, done in about 75 s"},
		{"the next one", client.Job{Status: client.Queued, QueuePosition: &zero}, 40, "- queued, next"},
		{"what holds it back", client.Job{Status: client.Parked, HeldBackBy: "paused"}, 40, "- parked, held back by paused"},
		{"a job for later", client.Job{Status: client.Scheduled, RunAt: now.Add(2 * time.Hour)}, 40, "- scheduled, begins in 2 h"},
		{"a job that failed", client.Job{Status: client.Scheduled, RunAt: now.Add(1500 * time.Millisecond), Error: &client.Failure{}}, 40, "- waits to try again, in 2 s"},
		{"no progress", client.Job{Status: client.Running}, 40, "- running, 0 s"},
		{"progress", client.Job{Status: client.Running, Progress: client.Progress{Percent: 50}}, 30, "[###########------------]  50%"},
		{"wide characters", client.Job{Status: client.Running, Progress: client.Progress{Percent: 50, Status: "潮汐"}}, 30, "[#########---------]  50% 潮汐"},
		{"a percentage out of range", client.Job{Status: client.Running, Progress: client.Progress{Percent: 400}}, 20, "[#############] 100%"},
		{"a narrow terminal", client.Job{Status: client.Running, Progress: client.Progress{Percent: 50, Status: "Reading page 7 of 9"}}, 20, "[#####-----]  50% R…"},
		{"an ended job", client.Job{Status: client.Succeeded}, 40, ""},
	} {
		m := meter{}
		m.setJob(&tt.job, now)
		if tt.job.QueuePosition != nil || tt.job.HeldBackBy != "" {
			m.place = &tt.job
		}
		got := m.text(tt.width, now)
		if got != tt.want || textWidth(got) > tt.width {
			t.Errorf("%s: %q, want %q", tt.rule, got, tt.want)
		}
	}
}

func TestFormatSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{-time.Second: "0 s", time.Millisecond: "1 s", 99 * time.Second: "99 s", 150 * time.Second: "3 min", 3 * time.Hour: "3 h"} {
		if got := formatSpan(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
