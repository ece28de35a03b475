package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// policyHelp explains --timeout and --retry.
func policyHelp() string {
	return `--timeout sets a clock of the job, such as run_hard=60s; "off" turns it off:
` + wrapped(clockNames(), "  ", 80) + `
--retry sets what happens after a failed attempt:
  backoff=2s, backoff_max=1m, for=1h, on_timeout=true, after_output=fail (or
  restart)`
}

// clockNames lists the clocks that a submit may set, with commas.
func clockNames() string {
	var names []string
	for i := range job.Clocks {
		if c := &job.Clocks[i]; c.SubmitField == "" {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ", ")
}

// wrapped breaks text into lines of at most width bytes, indent included.
func wrapped(text, indent string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		if i == 0 || column+1+len(word) > width {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(indent)
			column = len(indent)
		} else {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

func setTimeouts(t *client.Timeouts, given []string) error {
	for _, text := range given {
		name, value, _ := strings.Cut(text, "=")
		d, err := duration(value)
		if !t.Set(name, d) {
			return fmt.Errorf("--timeout %s: there is no clock %q; there are %s", text, name, clockNames())
		}
		if err != nil {
			return fmt.Errorf("--timeout %s: %w", text, err)
		}
	}
	return nil
}

func setRetry(r *client.RetryPolicy, given []string) error {
	for _, text := range given {
		name, value, _ := strings.Cut(text, "=")
		if err := setRetryField(r, name, value); err != nil {
			return fmt.Errorf("--retry %s: %w", text, err)
		}
	}
	return nil
}

func setRetryField(r *client.RetryPolicy, name, value string) (err error) {
	switch name {
	case "backoff":
		r.Backoff, err = duration(value)
	case "backoff_max":
		r.BackoffMax, err = duration(value)
	case "for":
		r.For, err = duration(value)
	case "on_timeout":
		var on bool
		on, err = strconv.ParseBool(value)
		r.OnTimeout = &on
	case "after_output":
		r.AfterOutput = value
	default:
		err = fmt.Errorf("there is no setting %q; there are backoff, backoff_max, for, on_timeout and after_output", name)
	}
	return err
}

// duration parses a duration such as 90s, a number of seconds, or "off".
func duration(text string) (time.Duration, error) {
	if text == "off" {
		return client.Off, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		text = strconv.FormatFloat(s, 'f', -1, 64) + "s"
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration; use 90s, 5m or off", text)
	case d < 0:
		return 0, fmt.Errorf("a duration cannot be negative")
	case d == 0 && strings.ContainsAny(text, "123456789"):
		return 1, nil // less than a nanosecond is not off
	case d == 0:
		return client.Off, nil
	}
	return d, nil
}

// delay parses a delay. "off" means no delay.
func delay(text string) (time.Duration, error) {
	d, err := duration(text)
	if d == client.Off {
		d = 0
	}
	return d, err
}

// pairs parses NAME=VALUE pairs.
func pairs(flag string, given []string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(given))
	for _, text := range given {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s takes NAME=VALUE, not %q", flag, text)
		}
		m[name] = value
	}
	return m, nil
}
