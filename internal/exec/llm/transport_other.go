//go:build !linux

package llm

import (
	"context"
	"syscall"
)

// limitUnacknowledged does nothing: the system's own limit applies.
func limitUnacknowledged(context.Context, string, string, syscall.RawConn) error { return nil }
