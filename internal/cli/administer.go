package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// administration holds the options of every command that changes keys and tenants.
type administration struct {
	data string
	database
	json bool
}

// placeHelp says where the commands find keys and tenants.
const placeHelp = `The command asks the server that uses the data directory (--data), as its
administrator: who may use the directory needs no key. If no server runs it opens the
directory itself. With --database it writes to the PostgreSQL database, and servers
follow within seconds.`

func (o *administration) addFlags(cmd *cobra.Command) {
	addDataFlag(cmd, &o.data)
	o.database.addFlags(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, one object per line")
}

// config returns where the keys and tenants are.
func (o *administration) config(env *Env) (config.Config, error) {
	// A directory that is named needs no configuration, which may be that of another server.
	switch {
	case o.data != "" && (o.url != "" || o.file != ""):
		return config.Config{}, usagef("--data names a data directory, and --database and --config where the keys are otherwise: give one of them")
	case o.data != "":
		cfg := config.Default()
		cfg.Data = o.data
		return cfg, nil
	}
	return o.read(env)
}

// administrator makes calls of the admin API.
type administrator struct {
	ctx   context.Context
	admin *server.Admin
	place string // for messages
}

// administer calls do with an administrator. If create is true, a data directory that does not
// exist is made.
func (o *administration) administer(ctx context.Context, env *Env, create bool, do func(*administrator) error) error {
	cfg, err := o.config(env)
	if err != nil {
		return err
	}
	a := &administrator{ctx: ctx, place: cfg.Data}
	if cfg.Database != "" {
		a.place = config.DatabasePlace(cfg.Database)
	}
	if a.admin, err = server.OpenAdmin(ctx, cfg, create); err != nil {
		return err
	}
	return errors.Join(do(a), a.admin.Close())
}

// call makes a call and decodes its answer. A refusal is a *[client.Error].
func (a *administrator) call(method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	// The host is never resolved: the transport has one server only.
	r, err := http.NewRequestWithContext(a.ctx, method, "http://localhost"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := a.admin.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("the server of %s did not answer: %w", a.place, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		return refusal(res.StatusCode, text)
	}
	return json.Unmarshal(text, out)
}

// refusal returns the error of a problem document.
func refusal(status int, body []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Field  string `json:"field"`
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Code == "" {
		return fmt.Errorf("the server answered %d without saying why", status)
	}
	return &client.Error{Status: status, Code: p.Code, Message: p.Detail, Field: p.Field}
}

// listOf is a list of the admin API.
type listOf[T any] struct {
	Data []T `json:"data"`
}
