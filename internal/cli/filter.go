package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

// filterFlags are the flags that select jobs.
type filterFlags struct {
	filter   client.Filter
	metadata []string
	anySet   bool // whether any of the flags was given
}

var filterNames = []string{"queue", "status", "key", "error-code", "created-after", "created-before", "metadata"}

func (o *filterFlags) addFlags(env *Env, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.filter.Queue, "queue", "", "only jobs of this queue")
	f.StringVar((*string)(&o.filter.Status), "status", "", "only jobs with this status: scheduled, queued, parked, running, succeeded, failed, cancelled, expired")
	f.Func("key", "only jobs of this `KEY`; an empty one selects jobs without a key", func(text string) error {
		o.filter.Key = &text
		return nil
	})
	f.StringVar(&o.filter.ErrorCode, "error-code", "", "only jobs whose last failed attempt failed with this code")
	f.Func("created-after", "only jobs created after this `TIME`: 2030-01-31T09:00:00Z, or 2h for two hours ago", func(text string) (err error) {
		o.filter.CreatedAfter, err = parseTime(text, env.Now())
		return err
	})
	f.Func("created-before", "only jobs created before this `TIME`", func(text string) (err error) {
		o.filter.CreatedBefore, err = parseTime(text, env.Now())
		return err
	})
	f.StringArrayVar(&o.metadata, "metadata", nil, "only jobs with this `NAME=VALUE`; up to 16 times, and a job must have all")
}

// read builds the filter from the flags.
func (o *filterFlags) read(cmd *cobra.Command) (err error) {
	for _, name := range filterNames {
		o.anySet = o.anySet || cmd.Flags().Changed(name)
	}
	if o.filter.Metadata, err = pairs("--metadata", o.metadata); err != nil {
		return usageError{err}
	}
	return nil
}

// parseTime parses a time, or a duration before now.
func parseTime(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("%q is not a time; use 2030-01-31T09:00:00Z, or 2h for two hours ago", text)
	}
	return now.Add(-d), nil
}
