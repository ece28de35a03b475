package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

func newServeCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server until it is interrupted.

Settings come from flags, then from MEANWHILE_… variables, then from the
configuration file, then from defaults. 'meanwhile serve' without settings runs
everything, with a simulated model for the queue "chat". docs/configuration.md
lists all settings.

The first SIGTERM or SIGINT stops the server in good order: running work may
finish, and the rest runs again after the next start. The second signal ends the
server at once.`,
		Args: usageCheck(cobra.NoArgs),
	}
	file := cmd.Flags().String("config", "", "the configuration `FILE`, in YAML (default: MEANWHILE_CONFIG)")
	for _, f := range config.Flags() {
		if f.Bool {
			cmd.Flags().Bool(f.Name, f.On, f.Usage)
		} else {
			cmd.Flags().String(f.Name, "", f.Usage)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		given := map[string]string{}
		for _, f := range config.Flags() {
			if flag := cmd.Flags().Lookup(f.Name); flag.Changed {
				given[f.Name] = flag.Value.String()
			}
		}
		return runServe(cmd.Context(), env, config.Sources{File: *file, Environ: env.Environ, Flags: given})
	}
	return cmd
}

func runServe(ctx context.Context, env *Env, sources config.Sources) error {
	cfg, err := config.Load(sources)
	if err != nil {
		return usageError{err}
	}
	return server.Run(ctx, cfg, telemetry.NewLog(env.Err, cfg.Log.Level, cfg.Log.Format))
}
