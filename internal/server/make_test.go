package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// commandDir is a directory of commands that a script under test finds instead of the real ones.
type commandDir struct {
	t    *testing.T
	path string
}

// newCommandDir links the named commands of this machine.
func newCommandDir(t *testing.T, names ...string) commandDir {
	t.Helper()
	d := commandDir{t, t.TempDir()}
	for _, name := range names {
		if err := os.Symlink(program(t, name), filepath.Join(d.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// add adds a command: a shell script.
func (d commandDir) add(name, script string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.path, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		d.t.Fatal(err)
	}
}

// run runs a command with these commands only and returns its output.
func (d commandDir) run(dir string, args ...string) string {
	d.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + d.path, "POLICY_RC=" + filepath.Join(d.path, "policy")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Errorf("%v: %v\n%s", args, err, out)
	}
	if _, err := os.Stat(filepath.Join(d.path, "policy")); err == nil {
		d.t.Error("the script leaves the policy behind that keeps services from starting")
	}
	return string(out)
}

// 'make serve' says that it builds, before the silence of the compiler, and then runs what it
// has built.
func TestMakeServeSaysThatItBuilds(t *testing.T) {
	t.Parallel()
	makefile, err := filepath.Abs("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d := newCommandDir(t, "make", "mkdir", "chmod")
	d.add("go", `echo "go $*"; mkdir -p bin; echo 'echo "serving: $*"' > bin/meanwhile; chmod +x bin/meanwhile`)
	out := d.run(dir, filepath.Join(d.path, "make"), "-f", makefile, "serve", "ARGS=--listen 127.0.0.1:9000")
	said, built, served := strings.Index(out, "Building bin/meanwhile: minutes"), strings.Index(out, "go build"), strings.Index(out, "serving: serve --listen 127.0.0.1:9000")
	if said < 0 || said > built || served < built {
		t.Errorf("it says\n%s", out)
	}
}

// examples/needs waits while another program uses apt, and repeats what the network breaks. It
// says why it waits, and how to install what it could not.
func TestNeedsWaitsForApt(t *testing.T) {
	t.Parallel()
	needs, err := filepath.Abs("../../examples/needs")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rule, apt string
		said      []string
		not       string
	}{
		{"a lock that another program releases", `n=$(cat tries 2>/dev/null || echo 0); echo $((n+1)) > tries
[ "$n" -ge 3 ] || { echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt)" >&2; exit 100; }`,
			[]string{"installing for the tests", "another program uses apt now; waiting for it"}, "not installed"},
		{"a lock that stays", `echo "E: Could not get lock /var/lib/dpkg/lock-frontend" >&2; exit 100`,
			[]string{"another program has used apt for 10 minutes", "sudo apt-get install curl"}, ""},
		{"no network", `echo "Err: Temporary failure resolving" >&2; exit 100`,
			[]string{"Temporary failure resolving", "trying again in 10 s", "apt-get failed, so these are not installed"}, "another program"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			d := newCommandDir(t, "tr", "cat", "tail", "rm", "chmod")
			d.add("id", "echo 0")
			d.add("sleep", "exit 0")
			d.add("apt-get", tt.apt)
			out := d.run(t.TempDir(), "/bin/sh", needs)
			for _, text := range tt.said {
				if !strings.Contains(out, text) {
					t.Errorf("it lacks %q:\n%s", text, out)
				}
			}
			if tt.not != "" && strings.Contains(out, tt.not) || strings.Count(out, "waiting for it") > 1 {
				t.Errorf("it says\n%s", out)
			}
		})
	}
}
