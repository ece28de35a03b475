package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// apiKey is a key as the admin API writes it.
type apiKey struct {
	ID        string     `json:"id"`
	Tenant    string     `json:"tenant"`
	Name      string     `json:"name"`
	Scopes    []string   `json:"scopes"`
	Queues    []string   `json:"queues"`
	ActAs     bool       `json:"act_as"`
	State     string     `json:"state"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Replaces  *string    `json:"replaces"`
	Key       string     `json:"key"` // of a new one

	text json.RawMessage // all of it, as it was received
}

// UnmarshalJSON also keeps the text, so that --json prints what this version does not know.
func (k *apiKey) UnmarshalJSON(text []byte) error {
	type plain apiKey
	if err := json.Unmarshal(text, (*plain)(k)); err != nil {
		return err
	}
	k.text = append(json.RawMessage(nil), text...)
	return nil
}

func newKeyCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, list, revoke and rotate API keys",
		Long: `Make, list, revoke and rotate the API keys of a server. A server without keys answers
programs on its own machine only. From the first key on every request needs one.
docs/access.md describes scopes, roles and tenants.

` + placeHelp,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyCreateCommand(env), newKeyListCommand(env), newKeyRevokeCommand(env), newKeyRotateCommand(env))
	return cmd
}

// keyOptions are the options of 'key create'.
type keyOptions struct {
	administration
	tenant, name, role, expires string
	scopes, queues              []string
	actAs, allTenants           bool
}

func newKeyCreateCommand(env *Env) *cobra.Command {
	var o keyOptions
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an API key",
		Long: `Make an API key and print it. It is shown this once: the server keeps only a hash.
Send it as 'Authorization: Bearer mw_…'.

The scopes are submit, read, read-meta, cancel, operate, webhooks, work:QUEUE,
tenant-admin and admin. The roles are bundles of them: meta-viewer, viewer, submitter,
operator, worker, tenant-admin, admin.

` + placeHelp,
		Example: `  meanwhile key create --name laptop --role admin
  meanwhile key create --tenant shop --name web --scopes submit,read,cancel --act-as`,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runKeyCreate(cmd.Context(), env, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "the key's `NAME`, for people")
	f.StringVar(&o.tenant, "tenant", "default", "the `TENANT` that the key belongs to")
	f.StringSliceVar(&o.scopes, "scopes", nil, "what it may do: `SCOPES` with commas")
	f.StringVar(&o.role, "role", "", "a `ROLE`, in addition to --scopes")
	f.StringSliceVar(&o.queues, "queues", nil, "the `QUEUES` to which it may submit (default: all)")
	f.BoolVar(&o.actAs, "act-as", false, "believe X-User-ID: the key acts for one user at a time")
	f.BoolVar(&o.allTenants, "all-tenants", false, "let a worker's key claim the jobs of every tenant")
	f.StringVar(&o.expires, "expires", "", "when it expires: after a `TIME` such as 90d or 12h, or at one (default: never)")
	o.addFlags(cmd)
	return cmd
}

// keyRequest is the body of a request for a key.
type keyRequest struct {
	Tenant     string   `json:"tenant,omitempty"`
	Name       string   `json:"name,omitempty"`
	Scopes     []string `json:"scopes,omitempty"`
	Role       string   `json:"role,omitempty"`
	Queues     []string `json:"queues,omitempty"`
	ActAs      bool     `json:"act_as,omitempty"`
	AllTenants bool     `json:"all_tenants,omitempty"`
	keyExpiry
	Overlap *float64 `json:"overlap_s,omitempty"`
}

// keyExpiry is when a key expires.
type keyExpiry struct {
	Expires   float64 `json:"expires_s,omitempty"`
	ExpiresAt string  `json:"expires_at,omitempty"`
}

// parseKeyExpiry reads --expires: a time span, or a time.
func parseKeyExpiry(text string) (e keyExpiry, err error) {
	if text == "" {
		return e, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		e.ExpiresAt = at.Format(time.RFC3339)
		return e, nil
	}
	span, err := longDuration(text)
	if err != nil || span < time.Second {
		return e, usagef("--expires %s: give a time span such as 90d or 12h, or a time such as 2030-01-31T09:00:00Z", text)
	}
	e.Expires = span.Seconds()
	return e, nil
}

// longDuration reads a time span, which may be in days.
func longDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is no number of days", days)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	return time.ParseDuration(text)
}

func runKeyCreate(ctx context.Context, env *Env, o *keyOptions) error {
	expiry, err := parseKeyExpiry(o.expires)
	if err != nil {
		return err
	}
	if o.name == "" {
		return usagef("give the key a name: --name")
	}
	in := keyRequest{Tenant: o.tenant, Name: o.name, Scopes: o.scopes, Role: o.role, Queues: o.queues, ActAs: o.actAs, AllTenants: o.allTenants, keyExpiry: expiry}
	return o.administer(ctx, env, true, func(a *administrator) error {
		var k apiKey
		if err := a.call(http.MethodPost, "/v1/admin/keys", in, &k); err != nil {
			return err
		}
		return printNewKey(env, o.json, a, &k)
	})
}

// printNewKey prints a key on standard output, and about it on standard error.
func printNewKey(env *Env, asJSON bool, a *administrator, k *apiKey) error {
	if asJSON {
		return printJSON(env.Out, k.text)
	}
	expiry := "it does not expire"
	if k.ExpiresAt != nil {
		expiry = "it expires " + formatTime(*k.ExpiresAt)
	}
	fmt.Fprintf(env.Err, "The key %s (%s) of the tenant %s in %s: %s; %s.\nIt is shown this once. Send it as Authorization: Bearer.\n",
		k.Name, k.ID, k.Tenant, a.place, strings.Join(k.Scopes, ", "), expiry)
	_, err := fmt.Fprintln(env.Out, k.Key)
	return err
}

func newKeyListCommand(env *Env) *cobra.Command {
	var o administration
	var tenant, state string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List API keys",
		Long: `List API keys, oldest first, also expired and revoked ones: they stay in the list for
30 days. The list never shows the keys themselves.

` + placeHelp,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if tenant != "" {
				query.Set("tenant", tenant)
			}
			if state != "" {
				query.Set("state", state)
			}
			return o.administer(cmd.Context(), env, false, func(a *administrator) error { return runKeyList(env, o.json, a, query) })
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only keys of this `TENANT`")
	cmd.Flags().StringVar(&state, "state", "", "only keys in this `STATE`: live, expired or revoked")
	o.addFlags(cmd)
	return cmd
}

// findKeys lists keys.
func (a *administrator) findKeys(query url.Values) ([]apiKey, error) {
	var list listOf[apiKey]
	path := "/v1/admin/keys"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	err := a.call(http.MethodGet, path, nil, &list)
	return list.Data, err
}

func runKeyList(env *Env, asJSON bool, a *administrator, query url.Values) error {
	keys, err := a.findKeys(query)
	if err != nil {
		return err
	}
	if asJSON {
		for i := range keys {
			if err := printJSON(env.Out, keys[i].text); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(env, "ID", "NAME", "TENANT", "SCOPES", "QUEUES", "STATE", "CREATED", "EXPIRES")
	for i := range keys {
		k := &keys[i]
		scopes, expires := strings.Join(k.Scopes, ","), "never"
		if k.ActAs {
			scopes += " as users"
		}
		if k.ExpiresAt != nil {
			expires = formatTime(*k.ExpiresAt)
		}
		t.row(k.ID, k.Name, k.Tenant, scopes, cmp.Or(strings.Join(k.Queues, ","), "all"), k.State, formatTime(k.CreatedAt), expires)
	}
	return t.flush()
}

func newKeyRevokeCommand(env *Env) *cobra.Command {
	var o administration
	var tenant string
	cmd := &cobra.Command{
		Use:   "revoke KEY",
		Short: "End an API key",
		Long: `End an API key, by its id or its name. It is refused from now on, everywhere within 5
seconds, and open streams and sockets of it are closed. Revoking a key again is no error.

` + placeHelp,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.administer(cmd.Context(), env, false, func(a *administrator) error {
				id, err := a.resolveKey(args[0], tenant, false)
				if err != nil {
					return err
				}
				var k apiKey
				if err := a.call(http.MethodPost, "/v1/admin/keys/"+url.PathEscape(id)+"/revoke", nil, &k); err != nil {
					return err
				}
				if o.json {
					return printJSON(env.Out, k.text)
				}
				_, err = fmt.Fprintf(env.Out, "%s (%s) of the tenant %s is revoked\n", k.ID, k.Name, k.Tenant)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "default", "the `TENANT` of a key that is given by its name")
	o.addFlags(cmd)
	return cmd
}

func newKeyRotateCommand(env *Env) *cobra.Command {
	var o administration
	var tenant, overlap, expires string
	cmd := &cobra.Command{
		Use:   "rotate KEY",
		Short: "Make a new API key in place of another one",
		Long: `Make an API key that may do what another one may, given by its id or its name, and
print it. Both are accepted for a while, so that programs can change over; then the
old one expires.

` + placeHelp,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			span, err := longDuration(overlap)
			if err != nil || span < 0 {
				return usagef("--overlap %s: give a time span such as 24h or 7d", overlap)
			}
			seconds := span.Seconds()
			in := keyRequest{Overlap: &seconds}
			if in.keyExpiry, err = parseKeyExpiry(expires); err != nil {
				return err
			}
			return o.administer(cmd.Context(), env, false, func(a *administrator) error {
				id, err := a.resolveKey(args[0], tenant, true)
				if err != nil {
					return err
				}
				var k apiKey
				if err := a.call(http.MethodPost, "/v1/admin/keys/"+url.PathEscape(id)+"/rotate", in, &k); err != nil {
					return err
				}
				return printNewKey(env, o.json, a, &k)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", "default", "the `TENANT` of a key that is given by its name")
	f.StringVar(&overlap, "overlap", "24h", "how long the old key is still accepted: a `TIME` up to 30d")
	f.StringVar(&expires, "expires", "", "when the new key expires, a `TIME` as of 'key create' (default: as long as the old one was made for)")
	o.addFlags(cmd)
	return cmd
}

// resolveKey returns the id of a key that is given by its id or its name. A rotation means the
// newest key of a name. To revoke one of several that are live, it must be given by its id.
func (a *administrator) resolveKey(text, tenant string, newest bool) (id string, err error) {
	keys, err := a.findKeys(url.Values{"tenant": {tenant}, "name": {text}, "state": {"live"}})
	if err != nil {
		return "", err
	}
	switch {
	case len(keys) == 0:
		return text, nil // an id, or nothing, as the server will say
	case len(keys) > 1 && !newest:
		var ids []string
		for i := range keys {
			ids = append(ids, keys[i].ID)
		}
		return "", usagef("%s has %d live keys named %s, oldest first: %s; give the id of one", tenant, len(keys), text, strings.Join(ids, ", "))
	}
	return keys[len(keys)-1].ID, nil
}
