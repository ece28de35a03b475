package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// leaseFaults are the names of the faults in lease.pml.
var leaseFaults = []string{"JUMPS", "OUTAGES", "CUTS", "HANGS", "FREEZES", "DRIFTS", "SETS"}

// once returns the flags of a run in which each of the faults may happen once.
func once(faults []string) []string {
	var flags []string
	for _, name := range leaseFaults {
		n := 0
		if slices.Contains(faults, name) {
			n = 1
		}
		flags = append(flags, fmt.Sprintf("-D%s=%d", name, n))
	}
	return flags
}

// No work outlives its lease and no healthy worker loses one, whichever two faults happen at any
// moments.
func TestLeasesHold(t *testing.T) {
	if testing.Short() {
		t.Skip("it visits millions of states")
	}
	t.Parallel()
	for _, faults := range [][]string{
		{"JUMPS", "OUTAGES"},
		{"JUMPS", "HANGS"},
		{"JUMPS", "DRIFTS"},
		{"JUMPS", "SETS"},
		{"OUTAGES", "HANGS"},
		{"OUTAGES", "FREEZES"},
		{"CUTS", "HANGS"},
		{"CUTS", "DRIFTS"},
		{"CUTS", "OUTAGES"},
		{"FREEZES", "DRIFTS"},
		{"FREEZES", "CUTS"},
	} {
		t.Run(strings.Join(faults, " and "), func(t *testing.T) {
			t.Parallel()
			if broken := check(t, "lease.pml", "-O1", once(faults)...); broken != "" {
				t.Errorf("a promise is broken: %s", broken)
			}
		})
	}
}

// twoWorkers is a part of the promise that two workers never work at once, as spin writes it.
const twoWorkers = "!(frozen[0]))&&"

// Without any one of its safeguards the protocol breaks a promise.
func TestEachSafeguardOfLeasesIsNeeded(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a C compiler for each safeguard")
	}
	t.Parallel()
	for without, c := range map[string]struct {
		faults []string
		broken string // a part of the promise
	}{
		"ONE_INTERVAL":    {[]string{"JUMPS"}, "token"},
		"LATE_REPEAT":     {[]string{"JUMPS", "HANGS"}, "token"},
		"NO_JUMP_CHECK":   {[]string{"JUMPS"}, "token"},
		"NO_OUTAGE_CHECK": {[]string{"JUMPS", "OUTAGES"}, "token"},
		"OWN_CLOCK":       {[]string{"SETS"}, "token"},
		"FROM_DELIVERY":   {[]string{"HANGS"}, "token"},
		"FROM_ANSWER":     {[]string{"CUTS", "HANGS"}, "token"},
		"START_FIRST":     {[]string{"JUMPS", "HANGS"}, twoWorkers},
		"NO_SELF_STOP":    {[]string{"CUTS"}, "token"},
		"NO_KILL":         {[]string{"CUTS"}, "token"},
		"NO_THAW_CHECK":   {[]string{"FREEZES"}, twoWorkers},
		"NO_SWEEP":        {[]string{"FREEZES"}, "lapsedFor"},
	} {
		t.Run(without, func(t *testing.T) {
			t.Parallel()
			broken := check(t, "lease.pml", "-O0", append(once(c.faults), "-D"+without)...)
			if broken == "" || !strings.Contains(broken, c.broken) {
				t.Errorf("spin found %q, want an error with %q", broken, c.broken)
			}
		})
	}
}
