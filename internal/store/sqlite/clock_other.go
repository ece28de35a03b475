//go:build !linux

package sqlite

import "time"

// sleptSinceBoot is not known here: delayed jobs are late by as much as the machine sleeps.
func sleptSinceBoot() time.Duration { return 0 }
