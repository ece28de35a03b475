// Package testmode tells a server that package meanwhiletest opens it. It is a value of the
// context, so that a program cannot set it by mistake.
package testmode

import "context"

// Mode is how a server of a test differs from others: it retries without a backoff, and its
// first call runs it.
type Mode struct {
	// Run calls run in a goroutine and returns at once.
	Run func(run func(context.Context) error)
}

type key struct{}

// With returns a context for the opening of a test's server.
func With(ctx context.Context, m *Mode) context.Context { return context.WithValue(ctx, key{}, m) }

// Of returns the mode, or nil for a server that is not a test's.
func Of(ctx context.Context) *Mode {
	m, _ := ctx.Value(key{}).(*Mode)
	return m
}
