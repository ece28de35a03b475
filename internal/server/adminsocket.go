package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// adminSocket is the entry of a data directory by which the command line reaches the server that
// uses it. Who may open it is an administrator: that is the user of the server's process.
const adminSocket = "admin.sock"

// maxSocketPath is how long the path of a socket may be on every system, in bytes.
const maxSocketPath = 100

// openAdminSocket makes the socket. A server works without it, on a file system that has none. A
// program that embeds the server and listens itself has no socket either: it decides who may do what,
// and its tests may run in a bubble of testing/synctest, where nothing may wait for a network.
func (c *components) openAdminSocket() {
	if c.cfg.Listen == "" {
		return
	}
	var err error
	if c.adminListener, err = listenAdmin(c.data.path); err != nil {
		c.log.Warn("the command line cannot reach this server to change keys and tenants: it has no socket in the data directory", "error", err)
	}
}

// serveAdmin serves the admin API on the socket until ctx ends.
func (c *components) serveAdmin(ctx context.Context) error {
	if c.adminListener == nil {
		return nil
	}
	srv := &http.Server{
		Handler: adminHandler(c.admin, c.log), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(c.adminListener) }()
	select {
	case err := <-failed:
		c.log.Error("the socket of the command line has failed", "error", err)
		return nil
	case <-ctx.Done():
	}
	// Before the server releases the directory, which may then be another server's.
	_ = os.Remove(filepath.Join(c.data.path, adminSocket))
	deadline, cancel := context.WithTimeout(context.Background(), requestGrace)
	defer cancel()
	err := srv.Shutdown(deadline)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-failed
	return err
}

// listenAdmin makes the socket of a data directory that this process has locked. It is made in a
// directory of its own first, because for a moment others could connect to a new socket.
func listenAdmin(data string) (net.Listener, error) {
	private := filepath.Join(data, adminSocket+".new")
	if err := os.RemoveAll(private); err != nil {
		return nil, err
	}
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	path, release, err := socketPath(private, "s")
	if err != nil {
		return nil, err
	}
	defer release()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // it will have another name
	made := filepath.Join(private, "s")
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, filepath.Join(data, adminSocket))); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// socketPath returns a path of a socket in a directory. The kernel takes only short paths. On Linux
// an open directory gives a short one, which is valid until release.
func socketPath(dir, name string) (path string, release func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= maxSocketPath || runtime.GOOS != "linux" {
		return path, func() {}, nil
	}
	open, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(open.Fd())), name), func() { _ = open.Close() }, nil
}

// dialAdmin connects to the server that uses a data directory. It returns errNoAdmin if no server
// listens there.
func dialAdmin(ctx context.Context, data string) (net.Conn, error) {
	path, release, err := socketPath(data, adminSocket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoAdmin
	}
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the server of %s belongs to another user: run the command as that user, or as root: %w", data, err)
	case err != nil && ctx.Err() == nil:
		return nil, errNoAdmin // none, or one that a killed server has left
	}
	return conn, err
}

var errNoAdmin = errors.New("no server listens on the socket")
