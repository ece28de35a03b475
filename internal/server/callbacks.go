package server

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/callback"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/netguard"
	"github.com/meanwhile-run/meanwhile/internal/runner"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// atEnd returns what follows from the end of a job.
func atEnd(publicURL string) store.AtEnd {
	return store.JoinAtEnd(conversation.AtEnd, callback.AtEnd(publicURL))
}

// openCallbacks makes what knows the receivers of callbacks, and what sends to them.
func (c *components) openCallbacks() {
	// An embedded server without an address of its own cannot tell who reaches it.
	allow, _ := netguard.ParseAllow(c.cfg.Callbacks.Allow) // the configuration was checked
	guard := &netguard.Guard{Allow: allow, Loopback: config.Loopback(c.cfg.Listen)}
	c.callbacks = callback.NewBook(callback.Config{
		Rows:     c.store,
		Write:    func(ctx context.Context, rows ...store.Row) error { return c.engine.Write(ctx, rows...) },
		CheckURL: func(url string) error { _, err := guard.CheckURL(url); return err },
		Send: func(ctx context.Context, t webhook.Target, id string, body []byte) webhook.Outcome {
			return c.sender.Send(ctx, t, id, body)
		},
		PublicURL: c.cfg.PublicURL,
		Log:       c.log,
	})
	c.sender = webhook.New(webhook.Config{
		Guard: guard, Endpoints: c.callbacks, Timeout: c.cfg.Callbacks.Timeout, Log: c.log,
		// So that slow receivers of one tenant do not delay the deliveries of others.
		TenantSlots: (c.cfg.Callbacks.Concurrency + 1) / 2,
	})
}

// deliveryQueue is the queue of deliveries. It is in no configuration, because the server needs
// it wherever a job that ends has a receiver.
func (c *components) deliveryQueue() engine.Queue {
	attempts, policy := webhook.Policy()
	return engine.Queue{
		Name: job.CallbackQueue, Executor: c.sender.Kind(), Internal: true, Concurrency: c.cfg.Callbacks.Concurrency, KeyRunning: c.cfg.Callbacks.PerReceiver,
		MaxAttempts: attempts, Policy: policy, Keep: c.cfg.Retention.Others, KeepFailed: c.cfg.Retention.Failed,
	}
}

func (c *components) deliveryRunner() *runner.Runner {
	_, policy := webhook.Policy()
	return c.newRunner(job.CallbackQueue, c.sender, policy.Timeouts, c.cfg.Callbacks.Concurrency)
}
