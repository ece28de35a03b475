package llm

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Codes with several uses.
const (
	codeBadStream = "upstream_bad_stream"
	codeBadAnswer = "upstream_bad_answer"
	codeTimeout   = "upstream_timeout"

	codeRateLimited = "upstream_rate_limited"
	codeConflict    = "upstream_conflict"
)

// fault returns a fault whose message begins with "the server of the model …", followed by did.
func (m *model) fault(code string, class job.Class, did string, cause error) *job.Fault {
	return &job.Fault{Code: code, Class: class, Err: cause,
		Message: fmt.Sprintf("the server of the model %s %s", job.Quote(m.Name), did)}
}

// statusFault returns the fault of an answer with an error status.
func (c *call) statusFault(ctx context.Context, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && ctx.Err() != nil {
		return c.transferFault(ctx, err)
	}
	f := c.model.faultForStatus(resp.StatusCode, fmt.Sprintf(" (%d)", resp.StatusCode), c.model.errorMessage(body))
	f.RetryAfter = retryAfter(resp.Header, time.Now())
	return f
}

// faultForStatus maps an HTTP status to a fault: its code, whether to retry, and a message. how
// is the origin of the status, and message is the server's own.
func (m *model) faultForStatus(status int, how, message string) *job.Fault {
	code, class, did := "upstream_rejected", job.Final, "does not accept the request"
	switch {
	case status == http.StatusUnauthorized:
		code, did = "upstream_unauthorized", "refuses the API key: "+m.keyAdvice()
	case status == http.StatusForbidden:
		code, did = "upstream_forbidden", "does not allow this with the API key it was given: "+m.keyAdvice()
	case status == http.StatusNotFound:
		code, did = "upstream_not_found", fmt.Sprintf("does not know the model %s, or the path %s: check the model's name and base_url",
			job.Quote(m.Upstream), m.url.Path)
	// The API key must not go to another host.
	case status >= 300 && status < 400:
		code, did = "upstream_redirect", "redirects elsewhere, which is not followed: set base_url to where it leads"
	case status == http.StatusRequestTimeout:
		code, class, did = codeTimeout, job.Retryable, "took too long"
	// These errors do not depend on the request itself, so it may succeed later.
	case status == http.StatusConflict || status == http.StatusTooEarly:
		code, class, did = codeConflict, job.Retryable, "cannot do it at this moment"
	// A wait costs the job no attempt.
	case status == http.StatusTooManyRequests:
		code, class, did = codeRateLimited, job.Wait, "asks to wait: too many requests"
	case status == http.StatusServiceUnavailable:
		code, class, did = "upstream_unavailable", job.Wait, "asks to wait: it is not available"
	case status >= 500:
		code, class, did = "upstream_error", job.Retryable, "failed"
	}
	did += how
	if message != "" {
		did += "; it says: " + message
	}
	return m.fault(code, class, did, nil)
}

func (m *model) keyAdvice() string {
	if m.APIKeyEnv == "" {
		return "name the variable that holds it as the model's api_key_env"
	}
	return "check the variable " + m.APIKeyEnv
}

// faultForError returns the fault of an error object inside an answer. Servers put an HTTP
// status or an error name into its code, status or type.
func (m *model) faultForError(raw json.RawMessage) *job.Fault {
	var e struct{ Code, Type, Status any }
	_ = json.Unmarshal(raw, &e)
	// An error without a known code may be temporary.
	status := http.StatusInternalServerError
	// The most specific field comes first.
	for _, v := range []any{e.Code, e.Status, e.Type} {
		if s := statusForCode(fmt.Sprint(v)); s != 0 {
			status = s
			break
		}
	}
	return m.faultForStatus(status, " (in its answer)", m.errorMessage(encodeJSON(map[string]json.RawMessage{"error": raw})))
}

// statusForCode returns the HTTP status for a code of an error object; 0 for an unknown code.
func statusForCode(word string) int {
	if n, err := strconv.Atoi(word); err == nil && n >= 400 && n <= 599 {
		return n
	}
	switch word {
	case "invalid_request_error", "context_length_exceeded", "content_filter", "insufficient_quota", "BadRequestError":
		return http.StatusBadRequest
	case "authentication_error", "invalid_api_key":
		return http.StatusUnauthorized
	case "permission_error":
		return http.StatusForbidden
	case "not_found_error", "model_not_found":
		return http.StatusNotFound
	case "rate_limit_error", "rate_limit_exceeded":
		return http.StatusTooManyRequests
	case "overloaded_error", "service_unavailable":
		return http.StatusServiceUnavailable
	}
	return 0
}

// errorMessage returns the message of an error body, shortened and printable. It removes the API
// key, which some servers repeat.
func (m *model) errorMessage(body []byte) string {
	text := strings.ToValidUTF8(findMessage(body), "�")
	if m.APIKey != "" {
		text = strings.ReplaceAll(text, m.APIKey, "[the key]")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	const maxRunes = 300
	if runes := []rune(text); len(runes) > maxRunes {
		text = string(runes[:maxRunes]) + "…"
	}
	return text
}

// findMessage returns the message of an error body in any of the formats that servers use.
func findMessage(body []byte) string {
	var shape struct {
		Error   json.RawMessage
		Message json.RawMessage
		Detail  json.RawMessage
	}
	if json.Unmarshal(body, &shape) != nil {
		if strings.Contains(string(body), "<") {
			return "" // a web page
		}
		return string(body)
	}
	var inner struct{ Message string }
	_ = json.Unmarshal(shape.Error, &inner)
	if inner.Message != "" {
		return inner.Message
	}
	for _, raw := range []json.RawMessage{shape.Error, shape.Message, shape.Detail} {
		var text string
		if json.Unmarshal(raw, &text) == nil && text != "" {
			return text
		}
	}
	return ""
}

// wrongTypeFault returns the fault of an answer that is neither a stream nor JSON.
func (m *model) wrongTypeFault(kind string) *job.Fault {
	if kind == "" {
		kind = "nothing that it names"
	}
	return m.fault(codeBadAnswer, job.Retryable,
		fmt.Sprintf("answered with %s instead of an event stream or JSON: check base_url, which often ends in /v1", kind), nil)
}

func (c *call) tooLargeFault() *job.Fault {
	return c.model.fault("upstream_too_large", job.Final,
		fmt.Sprintf("gave an answer of more than %d MiB", job.MaxOutput>>20), nil)
}

// transferFault returns the fault of an interrupted call. The cause is the request timeout, the
// end of its context, a limit, or the network.
func (c *call) transferFault(ctx context.Context, err error) error {
	var f *job.Fault
	switch {
	case errors.Is(context.Cause(ctx), errRequestTimeout):
		return c.model.fault(codeTimeout, job.Retryable,
			fmt.Sprintf("did not answer within %v; the queue's timeouts.request_s sets how long it may take", c.timeout), err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &f):
		return f
	}
	return c.model.networkFault(err)
}

func (m *model) networkFault(err error) *job.Fault {
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	const unreachable, badTLS = "upstream_unreachable", "upstream_tls"
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return m.fault(unreachable, job.Retryable, fmt.Sprintf("cannot be found: there is no host %s; check base_url", m.url.Hostname()), err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return m.fault(badTLS, job.Final, fmt.Sprintf("at %s does not speak https: start its base_url with http://", m.url.Host), err)
	case errors.As(err, &cert):
		return m.fault(badTLS, job.Final, fmt.Sprintf("at %s has a certificate that is not trusted here", m.url.Host), err)
	// A restarting server refuses connections for a while, so the job waits at no cost.
	case errors.Is(err, syscall.ECONNREFUSED):
		return m.fault(unreachable, job.Wait, fmt.Sprintf("refuses connections at %s: start it, or check base_url", m.url.Host), err)
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return m.fault(unreachable, job.Wait, fmt.Sprintf("at %s cannot be reached", m.url.Host), err)
	}
	return m.fault("upstream_disconnected", job.Retryable, "broke off the connection", err)
}

// retryAfter returns how long the server asks to wait: the header retry-after-ms, or Retry-After
// as seconds or as a date (RFC 9110, section 10.2.3); 0 without such a header.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return clampSeconds(ms / 1000)
	}
	after := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(after, 64); err == nil {
		return clampSeconds(s)
	}
	if at, err := http.ParseTime(after); err == nil {
		return clampSeconds(at.Sub(now).Seconds())
	}
	return 0
}

// clampSeconds converts seconds to a duration from 0 to [job.MaxDuration].
func clampSeconds(seconds float64) time.Duration {
	if math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, job.MaxDuration.Seconds()) * float64(time.Second))
}
