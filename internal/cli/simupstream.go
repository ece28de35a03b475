package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

type simUpstreamOptions struct {
	listen string
	fault  string
	simmodel.Options
}

func newSimUpstreamCommand(env *Env) *cobra.Command {
	o := simUpstreamOptions{Options: simmodel.Defaults()}
	cmd := &cobra.Command{
		Use:   "sim-upstream",
		Short: "Run a simulated model as a separate server",
		Long: `Run a simulated model as a separate server with the chat completions protocol of
OpenAI, streamed and not. It can behave in the ways of real model servers, so that
clients can be tried against them. Without a fault it answers any question, and
always gives the same answer to the same question.

A request can set options in the field "sim":
  "sim": {"first_token_ms": 500, "tokens_per_s": 25, "tokens": 100,
          "fault": "429", "fault_after": 3, "fault_times": 2, "key": "some name",
          "retry_after_s": 1}

A request for the model "sim/429" has the fault 429, and so on.

Faults: an HTTP status from 400 to 599 as the answer, or
` + faultHelp(),
		Args: usageCheck(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runSimUpstream(cmd.Context(), env, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8081", "the `host:port` to listen on; port 0 chooses a free port")
	f.StringSliceVar(&o.Models, "model", o.Models, "a model `NAME` to list; requests may use any name")
	f.DurationVar(&o.FirstToken, "first-token", o.FirstToken, "time from a request to the first token")
	f.Float64Var(&o.TokensPerSecond, "tokens-per-second", o.TokensPerSecond, "rate of the further tokens; 0 for all at once")
	f.IntVar(&o.Tokens, "tokens", 0, "number of tokens; 0 for the whole answer")
	f.StringVar(&o.fault, "fault", "", "the fault to simulate")
	f.IntVar(&o.FaultAfter, "fault-after", o.FaultAfter, "tokens before a fault in the middle of a stream")
	f.IntVar(&o.FaultTimes, "fault-times", 0, "only for this many first requests with the same key; 0 for all")
	f.DurationVar(&o.RetryAfter, "retry-after", o.RetryAfter, "the Retry-After of a 429 or 503")
	f.DurationVar(&o.KeepAlive, "keep-alive", 0, "send a comment in this interval while a stream waits for its next token")
	f.IntVar(&o.RequestsPerMinute, "requests-per-minute", 0, "answer this many, and further ones with 429 and Retry-After; 0 for no limit")
	f.DurationVar(&o.Load, "load", 0, "time to load the model at the first request; given up when nobody waits for it")
	f.StringVar(&o.FailUser, "fail-user", "", "answer 500 to requests whose \"user\" is this `NAME`")
	f.IntVar(&o.DeadAfter, "dead-after", 0, "let each connection die without closing after this many requests; 0 for never")
	f.BoolVar(&o.Timestamps, "stamps", false, "make each streamed token the time of its sending, in microseconds since 1970")
	return cmd
}

func faultHelp() string {
	var lines []string
	for _, f := range simmodel.Faults() {
		lines = append(lines, fmt.Sprintf("  %-20s %s", f, f.Does()))
	}
	return strings.Join(lines, "\n")
}

func runSimUpstream(ctx context.Context, env *Env, o simUpstreamOptions) error {
	var err error
	if o.Fault, err = simmodel.ParseFault(o.fault); err != nil {
		return usageError{err}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	fmt.Fprintf(env.Err, "A simulated model listens at http://%s/v1\n", ln.Addr())
	return serveUntil(ctx, simmodel.Listener(ln), simmodel.New(o.Options))
}

// serveUntil serves until ctx ends. It then closes all connections. Clients may speak HTTP/2
// without TLS.
func serveUntil(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ConnContext: simmodel.ConnContext, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	ctx, stop := context.WithCancel(ctx)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		<-ctx.Done()
		_ = srv.Close()
	}()
	err := srv.Serve(ln)
	// Serve may also return by itself. The goroutine must end in both cases.
	stop()
	<-closed
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
