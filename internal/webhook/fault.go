package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/netguard"
)

// The codes of failed attempts, besides those of [netguard.Code].
const (
	codeTimeout      = "endpoint_timeout"
	codeDisconnected = "endpoint_disconnected"
	codeTLS          = "endpoint_tls"
	codeStatus       = "endpoint_status"
	codeRedirect     = "endpoint_redirect"
	codeGone         = "endpoint_gone"
)

// setRefusal sets the failure of an answer whose status is no success.
func (o *Outcome) setRefusal(wait time.Duration) {
	o.Code, o.RetryAfter = codeStatus, wait
	o.Message = fmt.Sprintf("The receiver answered %d; a status from 200 to 299 accepts a delivery.", o.Status)
	switch {
	case o.Gone:
		o.Code, o.Message = codeGone, "The receiver answered 410: it wants no more deliveries. Retry the delivery if it does."
	case o.Status >= 300 && o.Status < 400:
		o.Code = codeRedirect
		o.Message = fmt.Sprintf("The receiver answered %d, a redirect, which is not followed: use the URL where it leads to.", o.Status)
	}
}

// setError sets the failure of a request without an answer. The message says nothing that only the
// server can know.
func (o *Outcome) setError(ctx context.Context, err error, timeout time.Duration) {
	guard, _ := errors.AsType[*netguard.Error](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	op, _ := errors.AsType[*net.OpError](err)
	isAlert := op != nil && (op.Op == "remote error" || op.Op == "local error") // by which crypto/tls names them
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		o.Code, o.Message = codeTimeout, fmt.Sprintf("The receiver did not answer within %g s: answer first, and work then.", timeout.Seconds())
	case guard != nil:
		o.Code, o.Message = string(guard.Code), "The delivery was not sent: "+guard.Message+"."
	case isCertificate:
		o.Code, o.Message = codeTLS, "The receiver has a certificate that is not trusted here: use one of a public authority, for the host in the URL."
	case isRecord || isAlert:
		o.Code, o.Message = codeTLS, "The receiver does not speak TLS, or no version of it that is spoken here: check the scheme and the port of the URL."
	default:
		o.Code, o.Message = codeDisconnected, "The receiver closed the connection, or answered with something that is not HTTP."
	}
}

// fault returns the fault of a failed attempt. delay is the wait of the schedule.
func (o *Outcome) fault(delay time.Duration) *job.Fault {
	f := &job.Fault{Code: o.Code, Message: o.Message, Class: job.Retryable, RetryAfter: max(delay, o.RetryAfter)}
	switch netguard.Code(o.Code) {
	case codeGone, netguard.BadURL, netguard.NeedsHTTPS, netguard.RefusedPort, netguard.RefusedAddress:
		f.Class = job.Final // the next attempt would end in the same way
	}
	return f
}

// isDown reports whether an outcome says that the destination does not work for any delivery.
func (o *Outcome) isDown() bool {
	switch {
	case o.Status == 0, o.Status >= 500, o.Status == http.StatusTooManyRequests, o.Status == http.StatusRequestTimeout:
		return true
	}
	return false
}

// circuitOpen is the fault of an attempt that did not ask its destination.
func circuitOpen(wait time.Duration) *job.Fault {
	return &job.Fault{Code: "circuit_open", Class: job.Wait, RetryAfter: wait,
		Message: "The receiver failed for the deliveries before this one, and is asked by one at a time until it answers."}
}

// tenantBusy is the fault of an attempt that would have taken a slot from another tenant.
func tenantBusy() *job.Fault {
	return &job.Fault{Code: "tenant_busy", Class: job.Wait, RetryAfter: time.Second + rand.N(time.Second),
		Message: "Too many deliveries of the tenant wait for their receivers, which answer slowly."}
}
