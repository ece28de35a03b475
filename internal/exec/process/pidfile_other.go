//go:build !linux

package process

import (
	"log/slog"
	"time"
)

// PIDFile does nothing, because the processes of an attempt can be found only on Linux.
type PIDFile struct{}

// OpenPIDFile does nothing.
func OpenPIDFile(path string, log *slog.Logger) (*PIDFile, error) { return nil, nil }

// Close does nothing.
func (n *PIDFile) Close() error { return nil }

func (n *PIDFile) addAttempt(a *attempt) error             { return nil }
func (n *PIDFile) addCommand(a *attempt, pid int)          {}
func (n *PIDFile) removeAttempt(a *attempt)                {}
func (a *attempt) killLeftovers(within time.Duration) bool { return true }
