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

// dataDir is a data directory that this process has locked. No other server can use it
// until release, or until this process ends in any way.
type dataDir struct {
	path string
	lock *os.File
}

// openData makes the directory if it is missing, and locks it. The kernel releases the lock
// of a killed process, so there is nothing to clean up. The pid in the lock file is for
// people; that of a killed process stays until the next start.
func openData(path string, l layout) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, unusable(path, "made", err)
	}
	if err := checkOwned(path); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(path, "used", err)
	}
	d := &dataDir{path: path, lock: lock}
	if err = d.acquireLock(); err == nil {
		err = d.markLayout(l)
	}
	if err == nil && l == wholeLayout {
		err = errors.Join(checkMoved(path), d.createDatabase())
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// unusable returns an error with advice, for a data directory that cannot be created or used.
func unusable(path, how string, err error) error {
	advice := ""
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		advice = "; make it writable for the user that the server runs as, or use another (--data)"
	}
	return fmt.Errorf("the data directory %s cannot be %s: %w%s", path, how, err, advice)
}

// spaceToStart is how many free bytes a start needs in addition to min_free_bytes.
const spaceToStart = reserve + 4<<20

// explainFullDisk adds to the error of a start on a full disk how much space the server
// needs to accept work. It returns other errors unchanged.
func explainFullDisk(cfg config.Config, err error) error {
	if !errors.Is(err, store.ErrFull) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	const mib = 1 << 20
	space := (cfg.MinFreeBytes + spaceToStart + mib - 1) / mib
	return fmt.Errorf("the disk that holds the data directory %s is full: free at least %d MiB on it, or name another directory (--data): %w", cfg.Data, space, err)
}

// checkOwned refuses a directory that has entries but no entry of a server: another program
// may use it.
func checkOwned(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return unusable(path, "used", err)
	}
	foreign := ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == layoutFile || name == filepath.Base(databaseIn(path)):
			return nil
		case foreign == "" && !isAllowedEntry(name):
			foreign = name
		}
	}
	if foreign != "" {
		return fmt.Errorf("the directory %s holds other things, such as %q, and no data of a server: give it one of its own, empty or new (--data)", path, foreign)
	}
	return nil
}

// isAllowedEntry reports whether a new data directory may contain an entry: files of an
// interrupted start, entries of the file system, hidden files, and files named after the
// program.
func isAllowedEntry(name string) bool {
	switch name {
	case lockFile, watchKeyFile, filesDir, layoutFile + ".new", "lost+found":
		return true
	}
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "meanwhile")
}

// Entries of a data directory.
const (
	lockFile     = "lock"
	filesDir     = "files"
	layoutFile   = "version"
	watchKeyFile = "watch.key"
	commandsFile = "commands" // the pid file of running commands
	scratchDir   = "tmp"      // holds the scratch directories of running commands
)

func (d *dataDir) commands() string { return filepath.Join(d.path, commandsFile) }

func (d *dataDir) scratch() string { return filepath.Join(d.path, scratchDir) }

// layout says what a data directory holds, and is written into it. A directory with another
// layout is refused.
type layout string

const (
	// wholeLayout is everything: the SQLite database, the files of jobs and the keys.
	wholeLayout layout = "1"
	// cacheLayout is what a server with a PostgreSQL database can do without.
	cacheLayout layout = "cache 1"
)

var errCache = errors.New("only a cache")

// layoutFor returns the layout of the directory of a server.
func layoutFor(cfg config.Config) layout {
	if cfg.Database != "" {
		return cacheLayout
	}
	return wholeLayout
}

// checkLayout refuses a directory of another layout. A directory without one is new, or older
// than the layouts.
func checkLayout(path string, want layout) error {
	text, err := os.ReadFile(filepath.Join(path, layoutFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unusable(path, "used", err)
	}
	found := layout(strings.TrimSpace(string(text)))
	_, noDatabase := os.Stat(databaseIn(path))
	switch {
	case want == cacheLayout && (found == wholeLayout || noDatabase == nil):
		return fmt.Errorf("the data directory %s holds the jobs of a server without a PostgreSQL database, and with one it is only a cache: name another directory (--data)", path)
	case err == nil && want == wholeLayout && found == cacheLayout:
		return fmt.Errorf("the data directory %s is %w: the jobs of its server are in a PostgreSQL database; name that (--database), or another directory (--data)", path, errCache)
	case err == nil && found != want:
		return fmt.Errorf("the data directory %s is of the layout %.20q, and this version of the program knows %s: run the version that made it, or name another directory (--data)", path, found, want)
	}
	return nil
}

// markLayout checks the layout, and writes it into a directory that has none.
func (d *dataDir) markLayout(l layout) error {
	if err := checkLayout(d.path, l); err != nil {
		return err
	}
	path := filepath.Join(d.path, layoutFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	err := writeSynced(path+".new", []byte(l+"\n"))
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return unusable(d.path, "written", err)
	}
	return syncDir(d.path)
}

func (d *dataDir) acquireLock() error {
	err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return dataInUse{fmt.Errorf("another server (pid %s) uses the data directory %s: stop it, or give this one another data directory (--data)", d.holder(), d.path)}
	}
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be locked: %w", d.path, err)
	}
	if err := d.lock.Truncate(0); err != nil {
		return fmt.Errorf("the lock of the data directory cannot be written: %w", err)
	}
	_, err = d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil // the lock works without the pid, which is for people
	}
	return err
}

// dataInUse is the error for a directory that another process has locked.
type dataInUse struct{ error }

// holder returns the pid in the lock file.
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

// createDatabase creates the database's file before SQLite does: SQLite would make it
// readable for everyone who can enter the directory.
func (d *dataDir) createDatabase() error {
	file, err := os.OpenFile(d.database(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return unusable(d.path, "written", err)
	}
	return file.Close()
}

// files returns the directory of the jobs' files.
func (d *dataDir) files() string { return filesIn(d.path) }

func filesIn(path string) string { return filepath.Join(path, filesDir) }

// release lets another server use the directory. The pid is removed first: someone may kill
// the process that the file names, and the system gives the number to another one.
func (d *dataDir) release() error {
	return errors.Join(d.lock.Truncate(0), d.lock.Close())
}
