package process

import (
	"crypto/rand"
	"encoding/hex"
)

// attemptVar is the variable with the attempt's token. The processes that the command starts
// inherit it.
const attemptVar = "MEANWHILE_ATTEMPT"

const tokenSize = 32

// attempt identifies the processes of one attempt.
type attempt struct {
	token   string // value of attemptVar
	scratch string // path of its scratch directory
	slot    int64  // its slot in the PID file; 0 for none
	pid     int    // process number of the command, which leads a process group; 0 before it starts
	start   uint64 // when the command started, in clock ticks since boot
	session int    // session of the command
}

func newAttempt() attempt {
	var b [tokenSize / 2]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return attempt{token: hex.EncodeToString(b[:])}
}
