package job

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Token proves the right to run one attempt of one job. It is made before the commit that
// stores it, so that a repeated commit gives the same lease. The zero value is no token.
type Token [16]byte

// NewToken makes a token from the system's randomness.
func NewToken() Token {
	var t Token
	_, _ = rand.Read(t[:]) // never fails: crypto/rand crashes the program instead
	return t
}

// String is the token in hexadecimal.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// IsZero reports whether t is the zero value.
func (t Token) IsZero() bool { return t == Token{} }

// Process identifies one start of a server. It is random, so that no two are the same. The
// zero value is an unknown server.
type Process [16]byte

// NewProcess makes an identity from the system's randomness.
func NewProcess() Process { return Process(NewToken()) }

// Lease is the right to run one attempt of one job. Every write of a worker carries it. After
// a sweep has ended it, every such write is refused.
type Lease struct {
	Job   ID
	Token Token
}

// Claimed is a job with its input and its lease, as a worker receives it.
type Claimed struct {
	Job   Job
	Input []byte
	// Unreadable is why the store could not decrypt the input; nil if it could.
	Unreadable error
	Token      Token
	// Until is when a sweep may end the lease, by the store's clock, unless the worker renews
	// it before.
	Until time.Time
	// Left is what is certainly left of the lease at the moment of delivery: a lease runs from
	// its commit. It is negative if the lease may be over. The engine sets it.
	Left time.Duration
}

// Lease is the claimed job's lease.
func (c *Claimed) Lease() Lease { return Lease{Job: c.Job.ID, Token: c.Token} }
