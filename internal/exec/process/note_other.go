//go:build !linux

package process

import (
	"log/slog"
	"time"
)

// Notes do nothing: only Linux tells which processes an attempt has left.
type Notes struct{}

// OpenNotes does nothing.
func OpenNotes(path string, log *slog.Logger) (*Notes, error) { return nil, nil }

// Close does nothing.
func (n *Notes) Close() error { return nil }

func (n *Notes) begin(a *attempt) error                    { return nil }
func (n *Notes) started(a *attempt, pid int)               {}
func (n *Notes) over(a *attempt)                           {}
func (a *attempt) killLeftovers(within time.Duration) bool { return true }
