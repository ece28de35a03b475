package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
)

const defaultServer = "http://127.0.0.1:8080"

// connection holds the options of every command that calls a server.
type connection struct {
	server string
	user   string
	json   bool
}

func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.server, "server", "", "the server's `URL` (default: MEANWHILE_SERVER, then "+defaultServer+")")
	f.StringVar(&c.user, "user", "", "the user who owns the jobs, sent as X-User-ID (default: MEANWHILE_USER, then \"local\")")
	f.BoolVar(&c.json, "json", false, "print JSON, one object per line")
}

// newClient creates the client.
func (c *connection) newClient(env *Env, more ...client.Option) (*client.Client, error) {
	options := []client.Option{
		client.WithUser(cmp.Or(c.user, env.getenv("MEANWHILE_USER"))),
		// Not a flag: other users of the machine can read those.
		client.WithKey(env.getenv("MEANWHILE_KEY")),
		client.WithUserAgent("meanwhile-cli"),
	}
	cl, err := client.New(cmp.Or(c.server, env.getenv("MEANWHILE_SERVER"), defaultServer), append(options, more...)...)
	if err != nil {
		return nil, usageError{err}
	}
	return cl, nil
}

// watchCommand returns the command that watches a job, for the user to copy.
func (c *connection) watchCommand(env *Env, id string) string {
	return env.commandText("meanwhile watch "+id) + c.flagsText()
}

// flagsText returns the flags that choose the server and the user, as they were given.
func (c *connection) flagsText() (text string) {
	if c.server != "" {
		text += " --server " + shellQuote(c.server)
	}
	if c.user != "" {
		text += " --user " + shellQuote(c.user)
	}
	return text
}

// printJSON prints one object on one line, without HTML escapes.
func printJSON(w io.Writer, v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("the answer cannot be written as JSON: %w", err)
	}
	_, err := w.Write(line.Bytes())
	return err
}
