package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// moveOptions are the flags of move.
type moveOptions struct {
	file, from, to string
	restart        bool
}

func newMoveCommand(env *Env) *cobra.Command {
	var o moveOptions
	cmd := &cobra.Command{
		Use:   "move",
		Short: "Move everything of a data directory into a PostgreSQL database",
		Long: `Copy everything that a data directory has into an empty PostgreSQL database: jobs in
all states with their output, results and files, conversations, idempotency keys,
counts, pauses and the keys of tokens. Jobs keep their ids and their order. Those
that ran wait again, as after a restart. At the end the copy is read and compared.

Stop the server of the directory first. If the move is interrupted, the same command
goes on where it stopped. Until it is complete, no server can use the database.
Afterwards the directory is as before, and marked so that no server uses it by
mistake.

--from defaults to the data directory that is configured, --to to the database.`,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runMove(cmd.Context(), env, o) },
	}
	cmd.Flags().StringVar(&o.file, "config", "", "the configuration `FILE` (default: MEANWHILE_CONFIG)")
	cmd.Flags().StringVar(&o.from, "from", "", "the data directory, as sqlite:`DIR`")
	cmd.Flags().StringVar(&o.to, "to", "", "the postgres:// `URL` of the database")
	cmd.Flags().BoolVar(&o.restart, "restart", false, "delete what an unfinished move has copied, and begin anew")
	return cmd
}

// sqliteScheme begins the name of a data directory as a source.
const sqliteScheme = "sqlite:"

func runMove(ctx context.Context, env *Env, o moveOptions) error {
	to := database{file: o.file, url: o.to}
	cfg, err := to.read(env)
	if err != nil {
		return err
	}
	if cfg.Database == "" {
		return usageError{errors.New("name the database with --to postgres://…, or configure one")}
	}
	from, isSQLite := strings.CutPrefix(o.from, sqliteScheme)
	switch {
	case o.from == "":
		from = cfg.Data
	case !isSQLite || from == "":
		return usageError{fmt.Errorf("--from %s: name a data directory as sqlite:DIR", o.from)}
	}
	began := env.Now()
	m := &moveMeter{env: env, began: began}
	moved, err := server.Move(ctx, cfg, from, o.restart, m.show)
	m.clear()
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(env.Err, "interrupted: the same command goes on where this one has stopped")
		}
		return err
	}
	return printMoved(env, from, config.DatabasePlace(cfg.Database), &moved, env.Now().Sub(began))
}

// movedNames are what people call the rows of a table, in the order of the report.
var movedNames = []struct{ table, name string }{
	{"jobs", "unfinished jobs"}, {"ended", "ended jobs"}, {"inputs", "inputs"}, {"output", "entries of output"}, {"results", "results"},
	{"with_files", "jobs with files"}, {"files", "files"}, {"file_chunks", "chunks of files"}, {"records", "rows of conversations"}, {"idempotency", "idempotency keys"},
	{"leftovers", "keys without a job"}, {"deleted", "deleted jobs"}, {"presence", "abandon timeouts"}, {"owners", "sums of owners"}, {"tallies", "tallies"}, {"queues", "queues"},
}

func printMoved(env *Env, from, to string, moved *server.Moved, took time.Duration) error {
	if moved.Before {
		fmt.Fprintf(env.Out, "%s was moved to %s already\n", from, to)
	}
	t := newTable(env, "MOVED", "ROWS", "BYTES")
	for _, n := range movedNames {
		if s := moved.Sums[n.table]; s.Rows > 0 {
			t.row(n.name, fmt.Sprint(s.Rows), formatBytes(s.Bytes))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, id := range moved.Lost {
		fmt.Fprintf(env.Err, "%s has lost a file in %s, so the copy lacks it too\n", id, from)
	}
	if moved.Before {
		return nil
	}
	if moved.Running > 0 {
		fmt.Fprintf(env.Out, "%d jobs ran when the server stopped: they wait again\n", moved.Running)
	}
	fmt.Fprintf(env.Out, "%s has the same rows and checksums; %d jobs in %s%s\n", to, moved.Jobs, took.Round(100*time.Millisecond), rate(moved, took))
	fmt.Fprintf(env.Out, "start servers with this database; %s is kept, and no server uses it any more\n", from)
	return nil
}

// rate says how fast the move was; "" if it was too short to say.
func rate(moved *server.Moved, took time.Duration) string {
	if took < time.Second {
		return ""
	}
	return fmt.Sprintf(", %.0f jobs/s, %s/s", float64(moved.Jobs)/took.Seconds(), formatBytes(int64(float64(moved.Bytes)/took.Seconds())))
}

// moveMeter shows the progress of a move: on a terminal all the time, elsewhere a line a minute.
type moveMeter struct {
	env   *Env
	began time.Time
	first *server.MoveReport
	last  time.Time
	drawn bool
}

func (m *moveMeter) show(r server.MoveReport) {
	now := m.env.Now()
	if m.first == nil {
		m.first = &r
	}
	every := time.Minute
	if m.env.ErrTerminal {
		every = 100 * time.Millisecond
	}
	if m.last.IsZero() && !m.env.ErrTerminal {
		m.last = now
	}
	if now.Sub(m.last) < every {
		return
	}
	m.last = now
	line := fmt.Sprintf("%d of %d jobs, %s", r.Jobs, r.AllJobs, formatBytes(r.Bytes))
	if took := now.Sub(m.began).Seconds(); took >= 1 {
		line += fmt.Sprintf(", %.0f jobs/s, %s/s", float64(r.Jobs-m.first.Jobs)/took, formatBytes(int64(float64(r.Bytes-m.first.Bytes)/took)))
	}
	if r.Table != "" {
		line = "comparing the table " + r.Table
	}
	if m.env.ErrTerminal {
		fmt.Fprintf(m.env.Err, "\r\x1b[K%s", line)
		m.drawn = true
	} else {
		fmt.Fprintln(m.env.Err, line)
	}
}

func (m *moveMeter) clear() {
	if m.drawn {
		fmt.Fprint(m.env.Err, "\r\x1b[K")
	}
}
