package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// meter is what the line below the output says about a job: a bar when it reports progress,
// its place when it waits, and otherwise a spinner and the time.
type meter struct {
	status   client.Status // "" for no line
	since    time.Time     // when the job got this status, as far as is known
	progress client.Progress
	reported bool        // the attempt has reported progress
	place    *client.Job // the last answer about a waiting job; nil before one
	frame    int         // of the spinner
}

const spinner = `-\|/`

// setJob updates the meter from a snapshot of the job.
func (m *meter) setJob(j *client.Job, now time.Time) {
	if m.status != j.Status {
		m.since, m.place, m.reported = now, nil, false
	}
	m.status = j.Status
	m.setProgress(j.Progress)
	if j.Status == client.Scheduled {
		m.place = j // it has the time of the next attempt
	}
}

func (m *meter) setProgress(p client.Progress) {
	m.progress = p
	m.reported = m.reported || p != (client.Progress{})
}

// text returns the line, in at most width columns.
func (m *meter) text(width int, now time.Time) string {
	if m.status == "" || m.status.Ended() {
		return ""
	}
	if m.status == client.Running && m.reported {
		return m.bar(width)
	}
	line := m.waiting(now)
	if m.status == client.Running {
		line = "running, " + formatSpan(now.Sub(m.since).Truncate(time.Second))
	}
	mark := spinner[m.frame%len(spinner)]
	return oneLine(string(mark)+" "+line, width)
}

// The bar takes what the texts leave, at least these columns.
const minBar = 10

// bar returns a bar across the whole width, with the percentage and the text of the work.
func (m *meter) bar(width int) string {
	percent := min(max(m.progress.Percent, 0), 100)
	after := fmt.Sprintf(" %3.0f%%", percent)
	if text := oneLine(m.progress.Status, max(width/2, 1)); text != "" {
		after += " " + text
	}
	cells := max(width-len("[]")-textWidth(after), minBar)
	full := int(percent / 100 * float64(cells))
	return cut("["+strings.Repeat("#", full)+strings.Repeat("-", cells-full)+"]"+after, width)
}

// paintBar colours the full part of a bar.
func paintBar(line string, s style) string {
	rest, isBar := strings.CutPrefix(line, "[")
	if !isBar {
		return line
	}
	full := len(rest) - len(strings.TrimLeft(rest, "#"))
	return "[" + s.paint(green, rest[:full]) + rest[full:]
}

// waiting says what a job waits for, how many jobs are before it, and how long it will take.
func (m *meter) waiting(now time.Time) string {
	j := m.place
	if j == nil {
		return string(m.status)
	}
	switch {
	case m.status == client.Scheduled && j.Error != nil:
		return "waits to try again, in " + formatSpan(j.RunAt.Sub(now))
	case m.status == client.Scheduled:
		return "scheduled, begins in " + formatSpan(j.RunAt.Sub(now))
	}
	line := string(m.status)
	if j.QueuePosition != nil {
		line += ", " + placeText(*j.QueuePosition)
	}
	line += holdText(j)
	if j.EstimatedTimeSeconds != nil {
		line += ", done in about " + formatSpan(time.Duration(*j.EstimatedTimeSeconds*float64(time.Second)))
	}
	return line
}

// placeText returns the place of a queued job.
func placeText(before int) string {
	if before == 0 {
		return "next"
	}
	return fmt.Sprintf("%d before it", before)
}

// formatSpan formats a duration in whole seconds, minutes or hours. It rounds up, so that
// what is still to come is never 0 s.
func formatSpan(d time.Duration) string {
	s := int64((max(d, 0) + time.Second - 1) / time.Second)
	switch {
	case s < 100:
		return fmt.Sprintf("%d s", s)
	case s < 100*60:
		return fmt.Sprintf("%d min", (s+30)/60)
	}
	return fmt.Sprintf("%d h", (s+1800)/3600)
}
