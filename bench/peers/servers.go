package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// servers are what peers keep their jobs in. Each peer gets a database of its own, or an empty
// Redis.
type servers struct {
	postgres                      *pgtest.Server
	postgresVersion, redisVersion string
	dir                           string // of Redis' files
}

// redisStart bounds the start of a Redis.
const redisStart = 10 * time.Second

func startServers() (*servers, error) {
	s := &servers{redisVersion: "not installed"}
	var err error
	// Some peers have many connections. All else is PostgreSQL's default, fsync too.
	s.postgres, err = pgtest.Run(pgtest.Options{TCP: true, Settings: map[string]string{"max_connections": "200"}})
	if err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "meanwhile-peers-"); err == nil {
		s.postgresVersion, err = s.askVersion()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	if said, err := exec.Command("redis-server", "--version").Output(); err == nil {
		for field := range strings.FieldsSeq(string(said)) {
			if version, ok := strings.CutPrefix(field, "v="); ok {
				s.redisVersion = version
			}
		}
	}
	return s, nil
}

func (s *servers) close() {
	s.postgres.Remove()
	_ = os.RemoveAll(s.dir)
}

func (s *servers) askVersion() (version string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, s.postgres.URL())
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close(ctx) }()
	err = c.QueryRow(ctx, "select current_setting('server_version') || ', synchronous_commit ' || current_setting('synchronous_commit') || ', fsync ' || current_setting('fsync') || ', shared_buffers ' || current_setting('shared_buffers')").Scan(&version)
	return version, err
}

// open makes a place for one peer. It returns its URL, the id of the process that keeps the jobs (0
// for SQLite), and a function that gives the place up.
func (s *servers) open(on place) (url string, pid int, closePlace func(), err error) {
	switch on {
	case onSQLite:
		return "", 0, func() {}, nil
	case onPostgres:
		d, err := s.postgres.Owned()
		if err != nil {
			return "", 0, nil, err
		}
		pid, err := s.postmaster()
		return d.NetworkURL(s.postgres.Addr()), pid, func() {}, err
	default:
		return s.startRedis(on)
	}
}

// postmaster returns the id of PostgreSQL's first process, the parent of all others.
func (s *servers) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.postgres.Dir(), "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// startRedis starts an empty Redis: one that syncs each write before it answers, or one that writes
// no file at all.
func (s *servers) startRedis(on place) (url string, pid int, stop func(), err error) {
	dir, err := os.MkdirTemp(s.dir, "redis-")
	if err != nil {
		return "", 0, nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return "", 0, nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	args := []string{"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--maxmemory-policy", "noeviction"}
	if on == onRedisSync {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	cmd := exec.Command("redis-server", args...)
	if err := cmd.Start(); err != nil {
		return "", 0, nil, fmt.Errorf("sudo apt-get install redis-server: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for deadline := time.Now().Add(redisStart); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return "redis://" + addr, cmd.Process.Pid, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return "", 0, nil, errors.New("Redis does not start")
		}
	}
}

// freeAddress returns an address of loopback where nothing listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
