//go:build !linux

package process

import (
	"log/slog"
	"time"
)

// PIDFile do nothing: only Linux tells which processes an attempt has left.
type PIDFile struct{}

// OpenPIDFile does nothing.
func OpenPIDFile(path string, log *slog.Logger) (*PIDFile, error) { return nil, nil }

// Close does nothing.
func (n *PIDFile) Close() error { return nil }

func (n *PIDFile) begin(a *attempt) error                  { return nil }
func (n *PIDFile) started(a *attempt, pid int)             {}
func (n *PIDFile) over(a *attempt)                         {}
func (a *attempt) killLeftovers(within time.Duration) bool { return true }
