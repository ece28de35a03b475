package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

func newBackupCommand(env *Env) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "backup DEST",
		Short: "Copy a data directory, also while a server uses it",
		Long: `Copy a data directory, with its files, into the new directory DEST, also while a
server uses it. The copy is a consistent state: it has every job that was
acknowledged before the backup began. DEST appears only when it is complete and
synced.

To restore, start a server on the copy:

  meanwhile serve --data DEST

Files are hard-linked when DEST is on the same disk: keep a copy elsewhere too.

Jobs in a PostgreSQL database are not in the directory. PostgreSQL's own tools back
them up.`,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from := env.configuredDatabase(); data == "" && from != "" {
				return fmt.Errorf("the jobs are in a PostgreSQL database (%s), which PostgreSQL's own tools back up, such as pg_basebackup and pg_dump; docs/scaling.md says how. To copy a data directory, name it with --data", from)
			}
			return runBackup(cmd.Context(), env, env.dataDir(data), args[0])
		},
	}
	addDataFlag(cmd, &data)
	return cmd
}

func runBackup(ctx context.Context, env *Env, from, to string) error {
	began := env.Now()
	m := &progressMeter{env: env}
	copied, err := server.Backup(ctx, from, to, m.show)
	m.clear()
	if ctx.Err() != nil && err != nil {
		return context.Canceled // Backup has removed the partial copy
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s: database %s, %d files of %d jobs %s, in %s\n", to, formatBytes(copied.Database),
		copied.Files, copied.Jobs, formatBytes(copied.Bytes), env.Now().Sub(began).Round(100*time.Millisecond))
	// Jobs can be deleted during the copy. The copy then lacks their files. That is no
	// damage.
	for _, key := range copied.Keys {
		fmt.Fprintf(env.Err, "the copy has values that are encrypted with the key %s, and does not contain it: keep the key elsewhere\n", key)
	}
	for _, id := range copied.Gone {
		fmt.Fprintf(env.Err, "%s was deleted during the backup: it is not in the copy\n", id)
	}
	for _, id := range copied.Lost {
		fmt.Fprintf(env.Err, "%s has no files in %s, so the copy has none either\n", id, from)
	}
	return nil
}

func newCheckCommand(env *Env) *cobra.Command {
	var data string
	var o database
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a data directory or a database for damage",
		Long: `Read the whole database of a data directory and check that the files of its jobs
exist, or read the whole PostgreSQL database that servers share, also while servers
use it. Every defect is a line on standard output. The exit status is 1 if there is
a defect.`,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runCheck(cmd.Context(), env, data, o) },
	}
	addDataFlag(cmd, &data)
	o.addFlags(cmd)
	return cmd
}

func runCheck(ctx context.Context, env *Env, data string, o database) error {
	if data != "" && (o.url != "" || o.file != "") {
		return usageError{errors.New("--data names a data directory, and --database and --config where the jobs are otherwise: give one of them")}
	}
	place, advice := env.dataDir(data), "start with a backup of it, or with another directory"
	check := func(found func(string)) error { return server.Check(ctx, place, found) }
	if data == "" && (o.url != "" || o.file != "" || env.configuredDatabase() != "") {
		cfg, err := o.read(env)
		if err != nil {
			return err
		}
		if place = cfg.Data; cfg.Database != "" {
			place, advice = config.DatabasePlace(cfg.Database), "restore a backup of it"
			check = func(found func(string)) error { return server.CheckDatabase(ctx, cfg, found) }
		}
	}
	defects := 0
	err := check(func(defect string) {
		defects++
		fmt.Fprintln(env.Out, oneLine(defect, 1000))
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case defects > 0:
		// The defects were already printed. The error sets the exit status and gives advice.
		return fmt.Errorf("%s is damaged: %s", place, advice)
	case err == nil:
		fmt.Fprintf(env.Out, "%s is intact\n", place)
	}
	return err
}

func addDataFlag(cmd *cobra.Command, data *string) {
	cmd.Flags().StringVar(data, "data", "", "the data `DIR` (default: MEANWHILE_DATA, then "+config.Default().Data+")")
}

// dataDir returns the data directory: of the flag, the environment, or the default.
func (e *Env) dataDir(flag string) string {
	for _, dir := range []string{flag, e.getenv(config.Variable("data"))} {
		if dir != "" {
			return dir
		}
	}
	return config.Default().Data
}

// configuredDatabase returns what names a database: a variable or a configuration file; "" for
// none.
func (e *Env) configuredDatabase() string {
	for _, key := range []string{"database", "database_file"} {
		if name := config.Variable(key); e.getenv(name) != "" {
			return name
		}
	}
	file := e.getenv("MEANWHILE_CONFIG")
	// A file with errors names no database for sure. What needs more of it reports them.
	if cfg, err := config.Load(config.Sources{Environ: e.Environ}); file != "" && err == nil && cfg.Database != "" {
		return file
	}
	return ""
}

// progressMeter shows the progress of a copy on a terminal.
type progressMeter struct {
	env   *Env
	last  string
	drawn bool
}

func (m *progressMeter) show(done, total int64) {
	if !m.env.ErrTerminal || total == 0 {
		return
	}
	// Print only changes: the callback comes for every block that is copied.
	if line := fmt.Sprintf("%d%% of %s", done*100/total, formatBytes(total)); line != m.last {
		fmt.Fprintf(m.env.Err, "\r\x1b[K%s", line)
		m.last, m.drawn = line, true
	}
}

func (m *progressMeter) clear() {
	if m.drawn {
		fmt.Fprint(m.env.Err, "\r\x1b[K")
	}
}

// formatBytes formats a number of bytes for people.
func formatBytes(bytes int64) string {
	const units = "KMGT"
	if bytes < 1<<10 {
		return fmt.Sprintf("%d B", bytes)
	}
	n, unit := float64(bytes)/(1<<10), 0
	for n >= 1<<10 && unit < len(units)-1 {
		n, unit = n/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", n, units[unit])
}
