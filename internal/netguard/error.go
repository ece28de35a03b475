package netguard

import (
	"fmt"
	"strconv"
)

// Code names why a request was not made. Codes are stable: programs match on them.
type Code string

// The reasons.
const (
	BadURL         Code = "bad_url"         // not a URL of HTTP, or one with a user or a fragment
	NeedsHTTPS     Code = "needs_https"     // a public address without TLS
	RefusedPort    Code = "refused_port"    // a public address at the port of another protocol
	RefusedAddress Code = "refused_address" // the URL names an address that is not public
	NoAddress      Code = "no_address"      // the name has no address that may be dialled, or none at all
	Unreachable    Code = "unreachable"     // the address may be dialled, and accepts no connection
)

// Error is why a request was not made. Anyone may see the message: it repeats the host of the URL
// and says nothing about what is behind it. Only the log may contain the cause.
type Error struct {
	Code    Code
	Message string
	Err     error // the cause, or nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

func errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func refusedAddress(host string) *Error {
	return errorf(RefusedAddress, "the address of %s is not a public one: use a public address. An operator can list it in callbacks.allow", quote(host))
}

func unreachableHost(host string, cause error) *Error {
	return &Error{Code: NoAddress, Err: cause,
		Message: "the host " + quote(host) + " has no public address: check its name. An operator can list a host inside in callbacks.allow"}
}

// quote quotes a host, which has at most maxURL bytes, all of them printable.
func quote(host string) string { return strconv.Quote(host) }
