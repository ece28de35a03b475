package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// superuser is the role that initdb makes.
const superuser = "postgres"

// binVariable names the directory of the programs of another version.
const binVariable = "MEANWHILE_TEST_POSTGRES"

// Installed reports whether PostgreSQL is installed, for tests that can do something without it.
// With -short they do only that.
func Installed() bool { return !testing.Short() && findPrograms() != "" }

// installed returns the directory of PostgreSQL's programs. A test on a machine without them is
// skipped; in CI it fails.
func installed(t testing.TB) string {
	t.Helper()
	if dir := findPrograms(); dir != "" {
		return dir
	}
	const how = "the test runs PostgreSQL, which is not installed: sudo apt-get install postgresql"
	if os.Getenv("MEANWHILE_CI") != "" {
		t.Fatal(how)
	}
	t.Skip(how)
	return ""
}

// findPrograms looks where the variable says, then among Debian's versions, newest first, and
// then where pg_config and PATH say.
func findPrograms() string {
	if dir := os.Getenv(binVariable); dir != "" {
		return dir
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
	if said, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(said)))
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		if hasProgram(dir, "initdb") && hasProgram(dir, "postgres") {
			return dir
		}
	}
	return ""
}

func hasProgram(dir, name string) bool {
	_, err := exec.LookPath(filepath.Join(dir, name))
	return err == nil
}

// majorVersion returns 15 for /usr/lib/postgresql/15/bin.
func majorVersion(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

// owner is the system user that runs a server: PostgreSQL refuses to run as root.
type owner struct {
	credential *syscall.Credential // nil for the user of this process
}

func clusterOwner() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUser := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGroup := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUser, errGroup); err != nil {
			return owner{}, err
		}
		return owner{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return owner{}, errors.New("pgtest: PostgreSQL does not run as root, and the users postgres and nobody do not exist")
}

// tempDir makes a directory that belongs to the owner. Its path is short, because the path of a
// Unix socket has at most 107 bytes.
func (o owner) tempDir() (string, error) {
	parent := os.TempDir()
	if len(parent) > 50 || o.credential != nil {
		parent = "/tmp" // a directory of root's may be closed to the owner
	}
	dir, err := os.MkdirTemp(parent, "meanwhile-pgtest-")
	if err != nil || o.credential == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(o.credential.Uid), int(o.credential.Gid))
}

// command returns a command that runs as the owner, in a session of its own: a signal from the
// terminal does not reach it.
func (o owner) command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.credential, Setsid: true}
	return cmd
}

// initialise makes a cluster. Its collation is no byte order, as most servers' is, so that a
// query that relies on the order of bytes without saying so fails here.
func initialise(o owner, programs, data string) error {
	args := []string{
		"-D", data, "-U", superuser, "--auth=trust", "--no-sync", "--encoding=UTF8",
		"--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US",
	}
	cmd := o.command(filepath.Dir(data), filepath.Join(programs, "initdb"), args...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: initdb: %w\n%s", err, said)
	}
	return nil
}
