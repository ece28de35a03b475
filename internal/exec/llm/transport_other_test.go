//go:build !linux

package llm

import (
	"net"
	"testing"
)

// wantedSocketOptions is empty: the options cannot be read in one way on all systems.
var wantedSocketOptions map[int]int

func socketOption(*testing.T, net.Conn, int) int { return 0 }
