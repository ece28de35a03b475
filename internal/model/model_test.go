package model

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// faults says how often each fault may happen in a run of the model.
type faults struct{ losses, rollbacks, crashes, deletes string }

func (f faults) flags() []string {
	return []string{"-DLOSSES=" + f.losses, "-DROLLBACKS=" + f.rollbacks, "-DCRASHES=" + f.crashes, "-DDELETES=" + f.deletes}
}

var (
	noFault   = faults{"0", "0", "0", "0"}
	oneLoss   = faults{"1", "0", "0", "0"}
	oneBack   = faults{"0", "1", "0", "0"}
	oneCrash  = faults{"0", "0", "1", "0"}
	oneDelete = faults{"0", "0", "0", "1"}
)

// check returns the first promise that a run of the model in file breaks; "" if it breaks none.
// optimize is the compiler's level: a short search is over before a better one pays.
func check(t *testing.T, file, optimize string, flags ...string) string {
	t.Helper()
	for _, program := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("MEANWHILE_CI") != "" {
				t.Fatalf("%s is not installed: examples/needs says how it is", program)
			}
			t.Skipf("%s is not installed: examples/needs says how it is", program)
		}
	}
	dir := t.TempDir()
	source, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	run(t, dir, "spin", append(flags, "-a", source)...)
	// -DSAFETY leaves out what only searches for cycles need.
	run(t, dir, "gcc", optimize, "-w", "-DSAFETY", "-o", "pan", "pan.c")
	out := run(t, dir, "./pan", "-m100000", "-w23")
	if strings.Contains(out, "max search depth too small") || !regexp.MustCompile(`errors: [01]\n`).MatchString(out) {
		t.Fatalf("the search is not complete:\n%s", out)
	}
	if m := regexp.MustCompile(`(?m)^pan:\d+: (.*) \(at depth \d+\)$`).FindStringSubmatch(out); m != nil {
		return m[1]
	}
	if !strings.Contains(out, "errors: 0\n") {
		t.Fatalf("spin found an error without a name:\n%s", out)
	}
	return ""
}

func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The protocol keeps its promises, whichever fault happens once.
func TestPromisesHold(t *testing.T) {
	if testing.Short() {
		t.Skip("it visits millions of states")
	}
	t.Parallel()
	for name, f := range map[string]faults{
		"a connection is lost":    oneLoss,
		"a transaction is undone": oneBack,
		"a process dies":          oneCrash,
		"rows of the log are old": oneDelete,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if broken := check(t, "store.pml", "-O1", f.flags()...); broken != "" {
				t.Errorf("a promise is broken: %s", broken)
			}
		})
	}
}

// Without any one of its safeguards the protocol breaks a promise, and spin finds out. So the
// model is able to find a mistake, and no safeguard is superfluous.
func TestEachSafeguardIsNeeded(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a C compiler for each safeguard")
	}
	t.Parallel()
	for without, c := range map[string]struct {
		faults faults
		broken string // a part of the promise
	}{
		"NO_FENCE":        {noFault, "token"},
		"NO_LOCK":         {noFault, "<=1"},
		"NO_FOLLOW":       {noFault, "<=1"},
		"NO_GAP_CHECK":    {oneDelete, "<=1"},
		"NO_RELOAD":       {oneBack, "<=1"},
		"NO_LOOKUP":       {oneLoss, "stored"},
		"NO_PROOF":        {oneLoss, "stored"},
		"NO_OWN_LOCK":     {oneLoss, "stored"},
		"NO_IDLE_TIMEOUT": {oneCrash, ""}, // the other process waits for ever
		"NO_CANCEL_RULE":  {noFault, "cancelAccepted"},
		"NO_SWEEP":        {oneCrash, "acknowledged"},
		"EARLY_ANSWER":    {oneCrash, "acknowledged"},
	} {
		t.Run(without, func(t *testing.T) {
			t.Parallel()
			broken := check(t, "store.pml", "-O0", append(c.faults.flags(), "-D"+without)...)
			if broken == "" || !strings.Contains(broken, c.broken) {
				t.Errorf("spin found %q, want an error with %q", broken, c.broken)
			}
		})
	}
}
