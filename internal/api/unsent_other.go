//go:build !linux

package api

import "net"

// boundUnsent does nothing: it needs TCP_NOTSENT_LOWAT of Linux.
func boundUnsent(net.Conn) {}
