package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

func newRotateKeyCommand(env *Env) *cobra.Command {
	var data string
	var o database
	var forget bool
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Make a new key for the tokens of pages",
		Long: `Add a key to a data directory, or to the database that servers share. It seals the
watch tokens and users' tokens from then on; servers that use it follow within
seconds. Nobody is logged out: the tokens of the last three keys stay valid until
they expire.

With --forget the earlier keys are removed: their tokens are refused at once.`,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runRotateKey(cmd.Context(), env, data, o, forget) },
	}
	addDataFlag(cmd, &data)
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&forget, "forget", false, "remove the earlier keys")
	return cmd
}

func runRotateKey(ctx context.Context, env *Env, data string, o database, forget bool) error {
	// A directory that is named needs no configuration, which may be that of another server.
	cfg := config.Config{Data: data}
	switch {
	case data != "" && (o.url != "" || o.file != ""):
		return usageError{errors.New("--data names a data directory, and --database and --config where the keys are otherwise: give one of them")}
	case data == "":
		var err error
		if cfg, err = o.read(env); err != nil {
			return err
		}
	}
	n, err := server.RotateTokenKey(ctx, cfg, forget)
	if err != nil {
		return err
	}
	place := cfg.Data
	if cfg.Database != "" {
		place = config.DatabasePlace(cfg.Database)
	}
	fmt.Fprintf(env.Out, "%s has a new key for tokens, and keeps %d earlier ones\n", place, n-1)
	return nil
}
