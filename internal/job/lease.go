package job

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Token proves that its holder runs one attempt of one job. It is made before the
// commit that stores it, so that a commit made again means the same lease. The
// zero value holds nothing.
type Token [16]byte

// NewToken makes a token from the system's randomness.
func NewToken() Token {
	var t Token
	_, _ = rand.Read(t[:]) // never fails: crypto/rand ends the program instead
	return t
}

// String is the token in hexadecimal.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// IsZero says whether the token holds nothing.
func (t Token) IsZero() bool { return t == Token{} }

// Process names one start of a server; random, so that no two are the same. The zero
// value is of no server that is known.
type Process [16]byte

// NewProcess makes a name from the system's randomness.
func NewProcess() Process { return Process(NewToken()) }

// Lease is the right to run one attempt of one job. Every write of a worker
// carries it; once a sweep has taken it, it changes nothing any more.
type Lease struct {
	Job   ID
	Token Token
}

// Claimed is a job as it is handed to a worker: the job, its input, and the lease.
type Claimed struct {
	Job   Job
	Input []byte
	Token Token
	// Until is when a sweep may take the lease, by the store's clock, unless it is
	// renewed before.
	Until time.Time
	// Left is how much of the lease is left when it is delivered: a lease runs from the
	// commit. The engine sets it at the delivery.
	Left time.Duration
}

// Lease is the claimed job's lease.
func (c *Claimed) Lease() Lease { return Lease{Job: c.Job.ID, Token: c.Token} }
