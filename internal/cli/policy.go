package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const policyHelp = `--timeout sets a clock of the job, such as run_hard=60s; "off" turns it off:
  lease, run_soft, run_hard, request, first_output, idle_output, queue,
  cancel_grace
--retry sets what follows a failed attempt:
  backoff=2s, backoff_max=1m, for=1h, on_timeout=true, after_output=fail (or
  restart)`

const clockNames = "lease, run_soft, run_hard, request, first_output, idle_output, queue and cancel_grace"

// clockOf finds a clock by its name; nil when there is none.
func clockOf(t *client.Timeouts, name string) *time.Duration {
	return map[string]*time.Duration{
		"lease": &t.Lease, "run_soft": &t.RunSoft, "run_hard": &t.RunHard, "request": &t.Request,
		"first_output": &t.FirstOutput, "idle_output": &t.IdleOutput, "queue": &t.Queue, "cancel_grace": &t.CancelGrace,
	}[name]
}

func setTimeouts(t *client.Timeouts, given []string) error {
	for _, text := range given {
		name, value, _ := strings.Cut(text, "=")
		clock := clockOf(t, name)
		if clock == nil {
			return fmt.Errorf("--timeout %s: there is no clock %q; there are %s", text, name, clockNames)
		}
		var err error
		if *clock, err = duration(value); err != nil {
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
		return 0, fmt.Errorf("%q is no duration; 90s and 5m are, and off", text)
	case d < 0:
		return 0, fmt.Errorf("a duration is not negative")
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
