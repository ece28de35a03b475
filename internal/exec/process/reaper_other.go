//go:build !linux

package process

import "context"

// ReapOrphans does nothing: only containers need it.
func ReapOrphans(context.Context) {}
