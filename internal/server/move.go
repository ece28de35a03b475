package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/move"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// MoveReport is how far a move is.
type MoveReport = move.Report

// MovedSum is the sum of the rows of a table.
type MovedSum = postgres.Sum

// Moved is what a move has copied.
type Moved struct {
	move.Copied
	// Running is how many jobs ran when the source was left. They wait again.
	Running int64
	// Before means that an earlier call has completed the move.
	Before bool
}

// Move copies all that a data directory has into the database of the configuration, so that
// servers of the database go on where that of the directory has stopped. A call that was
// interrupted is continued by the next one; with restart that begins anew. Afterwards a server
// refuses the directory. Nothing else in it changes.
func Move(ctx context.Context, cfg config.Config, from string, restart bool, report func(MoveReport)) (moved Moved, err error) {
	if err := checkData(from); err != nil {
		return moved, err
	}
	data, err := openData(from, wholeLayout)
	if err != nil {
		return moved, err
	}
	defer func() { err = errors.Join(err, data.release()) }()
	m := &mover{ctx: ctx, cfg: cfg, data: data, report: report}
	if err := m.openSource(); err != nil {
		return moved, err
	}
	defer func() { err = errors.Join(err, m.source.Snapshot.Close()) }()
	if err := m.openTarget(restart); err != nil {
		return moved, databaseError(cfg, err)
	}
	defer m.to.Close()
	err = m.run()
	if ctx.Err() != nil && err != nil {
		return m.moved, context.Cause(ctx)
	}
	return m.moved, err
}

// mover holds the state of one Move.
type mover struct {
	ctx    context.Context
	cfg    config.Config
	data   *dataDir
	ring   *sealed.Ring // opens what is read, and seals what is stored
	source move.Source
	to     *postgres.Import
	report func(MoveReport)
	moved  Moved
}

// openSource brings the directory up to date as a start and a stop of a server do, and opens it
// to read.
func (m *mover) openSource() error {
	ring, err := readRing(m.cfg.Encryption)
	if err != nil {
		return err
	}
	m.ring = ring
	opened, err := openSQLite(m.ctx, m.cfg, ring, m.data, slog.New(slog.DiscardHandler))
	if err == nil {
		err = opened.Close()
	}
	if err != nil {
		return err
	}
	m.source.Files = m.data.files()
	if _, err := os.Stat(filepath.Join(m.data.path, watchKeyFile)); err == nil { // else no token was ever made
		if m.source.TokenKeys, err = fileKeys(m.data.path); err != nil {
			return err
		}
	}
	m.source.Snapshot, err = sqlite.OpenSnapshot(m.ctx, m.data.database(), time.Now(), ring)
	return err
}

// openTarget brings the schema of the database up to date, and begins or continues the import.
func (m *mover) openTarget(restart bool) error {
	err := withDatabase(m.ctx, m.cfg, func(db postgres.Beginner) error {
		if m.cfg.DatabaseMigrate {
			if _, err := postgres.Up(m.ctx, db); err != nil {
				return err
			}
		}
		status, err := postgres.Status(m.ctx, db)
		if err == nil {
			err = postgres.Usable(status)
		}
		return err
	})
	if err != nil {
		return err
	}
	state, err := m.source.Snapshot.State()
	if err != nil {
		return err
	}
	path, err := filepath.Abs(m.data.path)
	if err != nil {
		return err
	}
	m.to, err = postgres.OpenImport(m.ctx, connectionURL(m.cfg), postgres.Source{State: state, Place: path}, postgres.ImportOptions{Restart: restart, Ring: m.ring, Unprepared: m.cfg.DatabasePooler})
	return err
}

func (m *mover) run() (err error) {
	if m.moved.Copied, err = move.Copy(m.ctx, m.source, m.to, m.report); err != nil {
		return databaseError(m.cfg, err)
	}
	if m.moved.Before = m.to.Done(); !m.moved.Before {
		if err := m.takeBack(); err != nil {
			return databaseError(m.cfg, err)
		}
		if err := m.to.End(m.ctx); err != nil {
			return databaseError(m.cfg, err)
		}
	}
	return markMoved(m.data.path, m.cfg)
}

// takeBack ends the attempts of the jobs that ran, by the rules of a server that starts after
// another was killed.
func (m *mover) takeBack() error {
	s, err := postgres.Open(m.ctx, connectionURL(m.cfg), postgres.Options{AtEnd: atEnd(m.cfg.PublicURL), Ring: m.ring, Importing: true, Unprepared: m.cfg.DatabasePooler})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	counts, err := s.Counts(m.ctx)
	if err != nil {
		return err
	}
	for _, c := range counts {
		m.moved.Running += c.Running
	}
	_, err = engine.New(m.ctx, engine.Config{Store: s, Alone: true, Queues: m.limits()})
	return err
}

// limits returns the queues with what decides which job is next.
func (m *mover) limits() (list []engine.Queue) {
	for name, q := range m.cfg.Queues {
		list = append(list, engine.Queue{Name: name, MaxRunning: q.MaxRunning, KeyRunning: q.PerKey.Running, KeyWaiting: q.PerKey.Waiting})
	}
	return list
}

// movedFile is the entry of a data directory whose content was moved. It is for people.
const movedFile = "moved"

func markMoved(data string, cfg config.Config) error {
	text := fmt.Sprintf("to %s on %s\n", config.DatabasePlace(cfg.Database), time.Now().UTC().Format(time.DateTime))
	if err := writeSynced(filepath.Join(data, movedFile), []byte(text)); err != nil {
		return fmt.Errorf("everything was moved, but the directory cannot be marked: %w", err)
	}
	return syncDir(data)
}

// checkMoved refuses a directory whose content was moved.
func checkMoved(data string) error {
	path := filepath.Join(data, movedFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unusable(data, "used", err)
	}
	return fmt.Errorf("the data directory %s was moved %s: start the server with that database (--database); to use the directory as it was then, without what has happened since, delete %s",
		data, strings.TrimSpace(string(text)), path)
}
