package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

func newEncryptionCommand(env *Env) *cobra.Command {
	var data string
	var o database
	cmd := &cobra.Command{
		Use:   "encryption",
		Short: "Show the keys that a store is encrypted with",
		Long: `Show which keys may have encrypted values in a data directory, or in the database
that servers share, and how far a server is in sealing them again with the current
key. No key is needed, and servers may be running.`,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runEncryption(cmd.Context(), env, data, o) },
	}
	addDataFlag(cmd, &data)
	o.addFlags(cmd)
	return cmd
}

func runEncryption(ctx context.Context, env *Env, data string, o database) error {
	cfg := config.Config{Data: data}
	switch {
	case data != "" && (o.url != "" || o.file != ""):
		return usageError{errors.New("--data names a data directory, and --database and --config where the values are otherwise: give one of them")}
	case data == "":
		var err error
		if cfg, err = o.read(env); err != nil {
			return err
		}
	}
	status, err := server.ReadEncryption(ctx, cfg)
	if err != nil {
		return err
	}
	if len(status.Keys) == 0 {
		fmt.Fprintln(env.Out, "no value is encrypted")
	}
	for _, key := range slices.Sorted(maps.Keys(status.Keys)) {
		fmt.Fprintf(env.Out, "key %s, last used %s\n", key, status.Keys[key].UTC().Format("2006-01-02 15:04:05Z"))
	}
	if p := status.Pass; p != nil {
		state, what := "is under way", "sealed again with the key "+p.To
		if p.To == "" {
			what = "stored without encryption again"
		}
		if !p.Ended.IsZero() {
			state = "has ended " + p.Ended.UTC().Format("2006-01-02 15:04:05Z")
		}
		fmt.Fprintf(env.Out, "%d values (%s) %s; the pass began %s and %s\n", p.Values, formatBytes(p.Bytes), what, p.Began.UTC().Format("2006-01-02 15:04:05Z"), state)
	}
	return nil
}
