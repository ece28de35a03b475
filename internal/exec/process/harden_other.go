//go:build !linux

package process

import osexec "os/exec"

// Protect does nothing: only Linux has what it needs.
func Protect() error { return nil }

// restrictThread does nothing.
func restrictThread() error { return nil }

// startLimited starts the command. [New] refuses limits.
func startLimited(cmd *osexec.Cmd, _ Limits) error { return startChild(cmd) }

const limitsSupported = false
