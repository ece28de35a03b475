package process

import (
	"crypto/rand"
	"encoding/hex"
)

// attemptVariable marks every process of an attempt: it has a random value that the
// command gives on to what it starts.
const attemptVariable = "MEANWHILE_ATTEMPT"

// tokenSize is the length of a token.
const tokenSize = 32

// attempt is what identifies the processes of one attempt.
type attempt struct {
	token string // the value of attemptVariable
	slot  int64  // of its note; 0 for none
	// Of the command, which leads a process group; zero before it is started.
	pid     int
	start   uint64 // when it was started, in ticks since the machine was
	session int
}

func newAttempt() attempt {
	var b [tokenSize / 2]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return attempt{token: hex.EncodeToString(b[:])}
}
