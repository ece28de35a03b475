package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// database says where the database is.
type database struct{ file, url string }

func newMigrateCommand(env *Env) *cobra.Command {
	var o database
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Change the schema of a PostgreSQL database",
		Long: `Change the schema of the database that servers share: bring it up to date, list
what has been applied, or take the newest steps back. A server does the first at its
start, unless database_migrate is false.

The database comes from --database, then from MEANWHILE_DATABASE or
MEANWHILE_DATABASE_FILE, then from the configuration file.`,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "up", Short: "Apply all pending steps",
			Long: `Apply all pending steps, each in a transaction. Any number of servers may run
meanwhile, of this version or of the one before it.`,
			Args: usageCheck(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error { return runMigrateUp(cmd.Context(), env, o) },
		},
		&cobra.Command{
			Use: "status", Short: "List the steps and whether they are applied",
			Long: `List all steps of the schema and when they were applied. The exit status is 1 if
this version of the program cannot use the database as it is.`,
			Args: usageCheck(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error { return runMigrateStatus(cmd.Context(), env, o) },
		},
		&cobra.Command{
			Use: "down NUMBER", Short: "Take back the steps after a number",
			Long: `Take back the steps after the one with this number, the newest first. A step that
would lose jobs is refused. Stop all servers before it.`,
			Args: usageCheck(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				to, err := strconv.Atoi(args[0])
				if err != nil || to < 0 {
					return usageError{fmt.Errorf("%q is no number of a step; 'meanwhile migrate status' lists them", args[0])}
				}
				return runMigrateDown(cmd.Context(), env, o, to)
			},
		})
	for _, c := range cmd.Commands() {
		o.addFlags(c)
	}
	return cmd
}

func (o *database) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.file, "config", "", "the configuration `FILE` that names the database (default: MEANWHILE_CONFIG)")
	cmd.Flags().StringVar(&o.url, "database", "", "the postgres:// `URL` of the database")
}

// load returns the configuration, which must have a database.
func (o *database) load(env *Env) (config.Config, error) {
	cfg, err := o.read(env)
	if err == nil && cfg.Database == "" {
		err = usageError{errors.New("no database is configured: name one with --database or MEANWHILE_DATABASE")}
	}
	return cfg, err
}

// read returns the configuration.
func (o *database) read(env *Env) (config.Config, error) {
	flags := map[string]string{}
	if o.url != "" {
		flags["database"] = o.url
	}
	cfg, err := config.Load(config.Sources{File: o.file, Environ: env.Environ, Flags: flags})
	if err != nil {
		return cfg, usageError{err}
	}
	return cfg, nil
}

func runMigrateUp(ctx context.Context, env *Env, o database) error {
	cfg, err := o.load(env)
	if err != nil {
		return err
	}
	applied, err := server.MigrateUp(ctx, cfg)
	printMigrations(env, "applied", applied)
	if err == nil && len(applied) == 0 {
		fmt.Fprintln(env.Out, "nothing to do: the schema is up to date")
	}
	return err
}

func runMigrateDown(ctx context.Context, env *Env, o database, to int) error {
	cfg, err := o.load(env)
	if err != nil {
		return err
	}
	undone, err := server.MigrateDown(ctx, cfg, to)
	printMigrations(env, "took back", undone)
	if err == nil && len(undone) == 0 {
		fmt.Fprintf(env.Out, "nothing to do: no step after %d is applied\n", to)
	}
	return err
}

func printMigrations(env *Env, did string, list []server.Migration) {
	for _, m := range list {
		fmt.Fprintf(env.Out, "%s %d %s\n", did, m.Number, m.Name)
	}
}

func runMigrateStatus(ctx context.Context, env *Env, o database) error {
	cfg, err := o.load(env)
	if err != nil {
		return err
	}
	list, unusable, err := server.MigrationStatus(ctx, cfg)
	if err != nil {
		return err
	}
	t := newTable(env, "STEP", "NAME", "APPLIED")
	for _, m := range list {
		applied := "pending"
		if !m.Applied.IsZero() {
			applied = m.Applied.UTC().Format(time.RFC3339)
		}
		if m.Unknown {
			applied += ", by a newer version"
		}
		t.row(strconv.Itoa(m.Number), m.Name, applied)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return unusable
}
