package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// secretVariable holds a secret that other programs must not read in the list of processes.
const secretVariable = "MEANWHILE_WEBHOOK_SECRET"

type listenOptions struct {
	listen  string
	port    int
	secrets []string
	status  int
	json    bool
}

func newListenCommand(env *Env) *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive callbacks and print them",
		Long: `Receive callbacks and print them, to try them out: what a delivery has, and whether
its signature is right. It needs no server and knows nothing of one.

  meanwhile listen --port 9000
  meanwhile submit sim '{}' --callback http://127.0.0.1:9000/done

With a secret each delivery is verified as a receiver should do it, and a wrong one
is answered with 401. The variable ` + secretVariable + ` holds a secret that no
other user of the machine can read. --status 500 answers every delivery with that
status, to see how it is tried again.`,
		Args: usageCheck(cobra.NoArgs),
	}
	f := cmd.Flags()
	f.IntVar(&o.port, "port", 0, "listen on this port of this machine; 0 chooses a free one")
	f.StringVar(&o.listen, "listen", "", "the `host:port` to listen on instead")
	f.StringSliceVar(&o.secrets, "secret", nil, "a secret (`whsec_…`) that may have signed; again for another one")
	f.IntVar(&o.status, "status", http.StatusNoContent, "the HTTP status of the answers")
	f.BoolVar(&o.json, "json", false, "print one line of JSON for each delivery")
	cmd.PreRunE = exclusiveFlags([]string{"port", "listen"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runListen(cmd.Context(), env, o) }
	return cmd
}

func runListen(ctx context.Context, env *Env, o listenOptions) error {
	r := &callbackReceiver{env: env, options: o, seen: map[string]int{}}
	for _, text := range append(o.secrets, strings.Fields(env.getenv(secretVariable))...) {
		s, err := webhook.ParseSecret(text)
		if err != nil {
			return usageError{err}
		}
		r.secrets = append(r.secrets, s)
	}
	if o.status < 200 || o.status > 599 {
		return usagef("--status is a status of HTTP, 200 to 599, not %d", o.status)
	}
	if o.port < 0 || o.port > 65535 {
		return usagef("--port is 0 to 65535, not %d", o.port)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cmp.Or(o.listen, net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))))
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	fmt.Fprintf(env.Err, "Waiting for callbacks at http://%s (Ctrl-C ends)\n", ln.Addr())
	return serveUntil(ctx, ln, r)
}

// Bounds of what is received and remembered.
const (
	maxDelivery     = 1 << 20 // bytes
	maxDeliveryIDs  = 10_000
	deliveryTimeout = 10 * time.Second // for a body to arrive
)

// callbackReceiver prints deliveries.
type callbackReceiver struct {
	// set once
	env     *Env
	options listenOptions
	secrets []webhook.Secret

	mu   sync.Mutex
	seen map[string]int // how often each id has come; guarded by mu, which also orders the output
}

// receipt is one delivery, as --json prints it.
type receipt struct {
	At       time.Time       `json:"at"`
	Path     string          `json:"path"`
	ID       string          `json:"id"`
	Times    int             `json:"times"` // how often this id has come
	Verified *bool           `json:"verified"`
	Problem  string          `json:"problem,omitempty"`
	Answer   int             `json:"answer"`
	Event    json.RawMessage `json:"event"`
}

// ServeHTTP answers and prints one delivery.
func (c *callbackReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "callbacks come by POST", http.StatusMethodNotAllowed)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
	if err != nil {
		http.Error(w, "the body has more than 1 MiB or does not arrive", http.StatusRequestEntityTooLarge)
		return
	}
	one := receipt{At: c.env.Now(), Path: r.URL.RequestURI(), ID: r.Header.Get(webhook.HeaderID), Answer: c.options.status, Event: body}
	if !json.Valid(body) {
		one.Event, _ = json.Marshal(string(body))
	}
	c.verify(&one, r.Header, body)
	w.WriteHeader(one.Answer)
	c.print(&one)
}

// verify checks the signature, if there is a secret.
func (c *callbackReceiver) verify(one *receipt, h http.Header, body []byte) {
	if len(c.secrets) == 0 {
		return
	}
	var err error
	for _, s := range c.secrets {
		if err = webhook.Verify(s, h, body, one.At); err == nil {
			break
		}
	}
	good := err == nil
	one.Verified = &good
	if !good {
		one.Problem, one.Answer = err.Error(), http.StatusUnauthorized
	}
}

func (c *callbackReceiver) print(one *receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) >= maxDeliveryIDs {
		clear(c.seen)
	}
	c.seen[one.ID]++
	one.Times = c.seen[one.ID]
	if c.options.json {
		_ = printJSON(c.env.Out, one)
		return
	}
	s := c.env.styleFor(c.env.OutTerminal)
	var e struct {
		Type string `json:"type"`
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	_ = json.Unmarshal(one.Event, &e)
	verdict := s.paint(yellow, "not verified: give --secret")
	switch {
	case one.Problem != "":
		verdict = s.paint(red, "refused: "+one.Problem)
	case one.Verified != nil:
		verdict = s.paint(green, "verified")
	}
	again := ""
	if one.Times > 1 {
		again = fmt.Sprintf(" (delivery %d of it)", one.Times)
	}
	fmt.Fprintf(c.env.Out, "%s  %s  %s%s  %s, answered %d\n", s.paint(dim, one.At.Format(time.TimeOnly)),
		s.paint(cyan, printable(cmp.Or(e.Type, "no event"))), printable(cmp.Or(e.Data.ID, one.ID, "-")), again, verdict, one.Answer)
	var pretty bytes.Buffer
	if json.Indent(&pretty, one.Event, "  ", "  ") == nil {
		fmt.Fprintf(c.env.Out, "  %s\n", printable(pretty.String()))
	}
}
