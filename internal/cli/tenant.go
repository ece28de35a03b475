package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// tenant is a tenant as the admin API writes it.
type tenant struct {
	Name      string         `json:"name"`
	State     string         `json:"state"`
	Keys      int            `json:"keys"`
	Limits    map[string]any `json:"limits"`
	CreatedAt *time.Time     `json:"created_at"`

	text json.RawMessage // all of it, as it was received
}

// UnmarshalJSON also keeps the text, so that --json prints what this version does not know.
func (t *tenant) UnmarshalJSON(text []byte) error {
	type plain tenant
	if err := json.Unmarshal(text, (*plain)(t)); err != nil {
		return err
	}
	t.text = append(json.RawMessage(nil), text...)
	return nil
}

func newTenantCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Make, list, limit and delete tenants",
		Long: `Make, list, limit and delete the tenants of a server: usually one for each
application. Jobs, keys and limits of a tenant are its own. What was stored before
there were tenants belongs to the tenant "default".

` + placeHelp,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTenantCreateCommand(env), newTenantListCommand(env), newTenantLimitsCommand(env), newTenantDeleteCommand(env))
	return cmd
}

// limitFlags are the flags of a tenant's limits.
var limitFlags = []struct{ name, field, usage string }{
	{"submits-per-s", "submits_per_s", "submits a second, on average"},
	{"burst", "burst", "submits at once"},
	{"waiting", "waiting", "waiting jobs"},
	{"running", "running", "running jobs"},
	{"bytes", "bytes", "bytes of input and files of its waiting jobs"},
	{"streams", "streams", "open streams and sockets in one server"},
	{"uploads", "uploads", "uploads at once in one server"},
}

func addLimitFlags(cmd *cobra.Command) {
	for _, l := range limitFlags {
		cmd.Flags().Float64(l.name, 0, "at most `N` "+l.usage+"; 0 for no limit")
	}
}

// givenLimits returns the limits whose flags were given.
func givenLimits(cmd *cobra.Command) (map[string]any, error) {
	limits := map[string]any{}
	for _, l := range limitFlags {
		flag := cmd.Flags().Lookup(l.name)
		if !flag.Changed {
			continue
		}
		n, err := cmd.Flags().GetFloat64(l.name)
		if err != nil {
			return nil, err
		}
		limits[l.field] = json.Number(strconv.FormatFloat(n, 'f', -1, 64))
	}
	return limits, nil
}

func newTenantCreateCommand(env *Env) *cobra.Command {
	var o administration
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a tenant",
		Long: `Make a tenant. Its name has 1 to 63 of a-z, 0-9, point, _ and -, and begins with a
letter or digit.

` + placeHelp,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := givenLimits(cmd)
			if err != nil {
				return err
			}
			return o.administer(cmd.Context(), env, true, func(a *administrator) error {
				var t tenant
				if err := a.call(http.MethodPost, "/v1/admin/tenants", map[string]any{"name": args[0], "limits": limits}, &t); err != nil {
					return err
				}
				return t.print(env, o.json, "is there")
			})
		},
	}
	addLimitFlags(cmd)
	o.addFlags(cmd)
	return cmd
}

// print prints what happened to a tenant.
func (t *tenant) print(env *Env, asJSON bool, did string) error {
	if asJSON {
		return printJSON(env.Out, t.text)
	}
	_, err := fmt.Fprintf(env.Out, "the tenant %s %s; %s\n", t.Name, did, t.limits())
	return err
}

// limits describes the limits.
func (t *tenant) limits() string {
	var all []string
	for _, l := range limitFlags {
		if n, ok := t.Limits[l.field].(float64); ok && n > 0 {
			all = append(all, l.name+" "+strconv.FormatFloat(n, 'f', -1, 64))
		}
	}
	if len(all) == 0 {
		return "no limits"
	}
	return strings.Join(all, ", ")
}

func newTenantListCommand(env *Env) *cobra.Command {
	var o administration
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tenants",
		Long: `List tenants with their limits and the number of their live keys.

` + placeHelp,
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.administer(cmd.Context(), env, false, func(a *administrator) error { return runTenantList(env, o.json, a) })
		},
	}
	o.addFlags(cmd)
	return cmd
}

func runTenantList(env *Env, asJSON bool, a *administrator) error {
	var list listOf[tenant]
	if err := a.call(http.MethodGet, "/v1/admin/tenants", nil, &list); err != nil {
		return err
	}
	t := newTable(env, "TENANT", "STATE", "KEYS", "LIMITS", "CREATED")
	for i := range list.Data {
		one := &list.Data[i]
		if asJSON {
			if err := printJSON(env.Out, one.text); err != nil {
				return err
			}
			continue
		}
		created := "-"
		if one.CreatedAt != nil {
			created = formatTime(*one.CreatedAt)
		}
		t.row(one.Name, one.State, strconv.Itoa(one.Keys), one.limits(), created)
	}
	if asJSON {
		return nil
	}
	return t.flush()
}

func newTenantLimitsCommand(env *Env) *cobra.Command {
	var o administration
	cmd := &cobra.Command{
		Use:   "limits NAME",
		Short: "Show or change the limits of a tenant",
		Long: `Change the limits of a tenant, or show them if none is given. Limits that are not
given stay as they are. Servers follow within seconds.

` + placeHelp,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := givenLimits(cmd)
			if err != nil {
				return err
			}
			return o.administer(cmd.Context(), env, false, func(a *administrator) error {
				var t tenant
				method, in, did := http.MethodPatch, any(map[string]any{"limits": limits}), "is changed"
				if len(limits) == 0 {
					method, in, did = http.MethodGet, nil, "is "
				}
				if err := a.call(method, "/v1/admin/tenants/"+url.PathEscape(args[0]), in, &t); err != nil {
					return err
				}
				if len(limits) == 0 {
					did += t.State
				}
				return t.print(env, o.json, did)
			})
		},
	}
	addLimitFlags(cmd)
	o.addFlags(cmd)
	return cmd
}

func newTenantDeleteCommand(env *Env) *cobra.Command {
	var o administration
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a tenant with all its jobs",
		Long: `Delete a tenant. Its keys are refused everywhere within 5 seconds. Then a running
server cancels its jobs and deletes them with everything that belongs to the tenant,
in pieces and also across restarts. Until that is done 'meanwhile tenant list' shows
the tenant as deleting.

` + placeHelp,
		Args: usageCheck(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return usagef("this deletes all jobs of the tenant %s: give --yes", args[0])
			}
			return o.administer(cmd.Context(), env, false, func(a *administrator) error {
				var t tenant
				if err := a.call(http.MethodDelete, "/v1/admin/tenants/"+url.PathEscape(args[0]), nil, &t); err != nil {
					return err
				}
				if o.json {
					return printJSON(env.Out, t.text)
				}
				_, err := fmt.Fprintf(env.Out, "the tenant %s is being deleted\n", t.Name)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "delete it without asking")
	o.addFlags(cmd)
	return cmd
}
