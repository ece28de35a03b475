package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// dataDir is a data directory that this process holds: no other server may use it
// until release, or until this process ends, however it ends.
type dataDir struct {
	path string
	lock *os.File
}

// openData makes the directory when it is missing and takes its lock. The lock
// belongs to the process, so that a kill -9 leaves nothing to clean up; the pid in
// the lock file is for people.
func openData(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, unusable(path, "made", err)
	}
	if err := checkOurs(path); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(path, "used", err)
	}
	d := &dataDir{path: path, lock: lock}
	if err = d.take(); err == nil {
		err = d.markLayout()
	}
	if err == nil {
		err = d.keepToItself()
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// unusable says why a data directory cannot be made or used, and what to do.
func unusable(path, how string, err error) error {
	advice := ""
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		advice = "; make it writable for the user that the server runs as, or name another (--data)"
	}
	return fmt.Errorf("the data directory %s cannot be %s: %w%s", path, how, err, advice)
}

// roomToStart is what a start writes before it takes work, beside what is kept free.
const roomToStart = reserve + 4<<20

// noRoom says of a start that failed because the disk is full what to do: how much
// room would do, so that work is taken too. Other errors it leaves as they are.
func noRoom(cfg config.Config, err error) error {
	if !errors.Is(err, store.ErrFull) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	const mib = 1 << 20
	room := (cfg.MinFreeBytes + roomToStart + mib - 1) / mib
	return fmt.Errorf("the disk that holds the data directory %s is full: make at least %d MiB of room on it, or name another directory (--data): %w", cfg.Data, room, err)
}

// checkOurs refuses a directory that is somebody else's: it has things in it, and
// nothing that says that a server was here.
func checkOurs(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return unusable(path, "used", err)
	}
	strange := ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == layoutFile || name == filepath.Base(databaseIn(path)):
			return nil
		case strange == "" && !mayBeThere(name):
			strange = name
		}
	}
	if strange != "" {
		return fmt.Errorf("the directory %s holds other things, such as %q, and no data of a server: give it one of its own, empty or new (--data)", path, strange)
	}
	return nil
}

// mayBeThere tells names in a directory that is to be a new data directory: what a
// start that was broken off has left, what a file system puts there, and what is
// hidden or called like the program.
func mayBeThere(name string) bool {
	switch name {
	case lockFile, watchKeyFile, filesDir, layoutFile + ".new", "lost+found":
		return true
	}
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "meanwhile")
}

// What lies where in a data directory.
const (
	lockFile     = "lock"
	filesDir     = "files"
	layoutFile   = "version"
	watchKeyFile = "watch.key"
	commandsFile = "commands" // notes of the attempts of process queues that are under way
)

func (d *dataDir) commands() string { return filepath.Join(d.path, commandsFile) }

// layout is the number of all that: a directory tells it, and one of another number
// is not for this program.
const layout = "1"

// checkLayout refuses a directory of another layout. One that tells none is new, or
// from before there were numbers.
func checkLayout(path string) error {
	text, err := os.ReadFile(filepath.Join(path, layoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unusable(path, "used", err)
	}
	if is := strings.TrimSpace(string(text)); is != layout {
		return fmt.Errorf("the data directory %s is of the layout %.20q, and this version of the program knows %s: run the version that made it, or name another directory (--data)", path, is, layout)
	}
	return nil
}

// markLayout checks the layout, and writes it into a directory that tells none.
func (d *dataDir) markLayout() error {
	if err := checkLayout(d.path); err != nil {
		return err
	}
	path := filepath.Join(d.path, layoutFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	err := writeSynced(path+".new", []byte(layout+"\n"))
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return unusable(d.path, "written", err)
	}
	return syncDir(d.path)
}

func (d *dataDir) take() error {
	err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("another server (pid %s) uses the data directory %s: stop it, or give this one another data directory (--data)", d.holder(), d.path)
	}
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be locked: %w", d.path, err)
	}
	if err := d.lock.Truncate(0); err != nil {
		return fmt.Errorf("the lock of the data directory cannot be written: %w", err)
	}
	_, err = d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil // the lock is held, and the pid is for people
	}
	return err
}

// holder reads the pid that the holder of the lock left.
func (d *dataDir) holder() string {
	text, _ := io.ReadAll(io.NewSectionReader(d.lock, 0, 32))
	if pid := strings.TrimSpace(string(text)); pid != "" {
		return pid
	}
	return "unknown"
}

// database is the path of the store's file.
func (d *dataDir) database() string { return databaseIn(d.path) }

func databaseIn(path string) string { return filepath.Join(path, "meanwhile.db") }

// keepToItself makes a new database's file before SQLite does, which would let
// everybody on the machine read it where they can enter the directory.
func (d *dataDir) keepToItself() error {
	file, err := os.OpenFile(d.database(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return unusable(d.path, "written", err)
	}
	return file.Close()
}

// files is where the files of jobs lie.
func (d *dataDir) files() string { return filesIn(d.path) }

func filesIn(path string) string { return filepath.Join(path, filesDir) }

// release lets another server use the directory.
func (d *dataDir) release() error { return d.lock.Close() }
