//go:build !linux

package sqlite

import "time"

// slept is not known here: delayed jobs are late by as much as the machine sleeps.
func slept() time.Duration { return 0 }
