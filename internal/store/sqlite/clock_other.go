//go:build !linux

package sqlite

import "time"

// sleptSinceBoot is unknown on this system: delayed jobs are late by the time the machine sleeps.
func sleptSinceBoot() time.Duration { return 0 }
