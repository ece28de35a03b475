//go:build unix

package process

import (
	"fmt"
	"os"
	osuser "os/user"
	"strconv"
	"syscall"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// user is the user that a command runs as. The zero value is the server's own.
type user struct{ credential *syscall.Credential }

// lookupUser returns the user with the name; the server's own for "".
func lookupUser(name string) (u user, err error) {
	if name == "" {
		return user{}, nil
	}
	if os.Geteuid() != 0 {
		return user{}, fmt.Errorf("a command can run as the user %s only if the server runs as root", job.Quote(name))
	}
	found, err := osuser.Lookup(name)
	if err != nil {
		return user{}, fmt.Errorf("there is no user %s on this machine: make it, or correct the queue's user", job.Quote(name))
	}
	groups, err := found.GroupIds()
	if err != nil {
		return user{}, fmt.Errorf("the groups of the user %s cannot be read: %w", job.Quote(name), err)
	}
	c := &syscall.Credential{Uid: number(found.Uid), Gid: number(found.Gid)}
	for _, g := range groups {
		c.Groups = append(c.Groups, number(g))
	}
	return user{c}, nil
}

// number parses the number of a user or group, which is decimal on these systems.
func number(id string) uint32 {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		panic(fmt.Errorf("process: the id %q of a user is no number", id))
	}
	return uint32(n)
}

// isOther reports whether the user is another than the server's.
func (u user) isOther() bool { return u.credential != nil }

// apply makes a command run as the user.
func (u user) apply(attr *syscall.SysProcAttr) { attr.Credential = u.credential }

// own gives files to the user, such as pipes: a command may open /dev/stdout.
func (u user) own(files []*os.File) error {
	for _, f := range files {
		if u.isOther() {
			if err := f.Chown(int(u.credential.Uid), int(u.credential.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownDir gives a directory to the user.
func (u user) ownDir(path string) error {
	if !u.isOther() {
		return nil
	}
	return os.Lchown(path, int(u.credential.Uid), int(u.credential.Gid))
}

// isOwnedHere reports whether a file belongs to this process's user.
func isOwnedHere(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
