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

// Codes that more than one place gives.
const (
	codeBadStream = "upstream_bad_stream"
	codeBadAnswer = "upstream_bad_answer"
	codeTimeout   = "upstream_timeout"

	codeRateLimited = "upstream_rate_limited"
	codeConflict    = "upstream_conflict"
)

// fault makes a fault whose message says what the model's server did.
func (m *model) fault(code string, class job.Class, did string, cause error) *job.Fault {
	return &job.Fault{Code: code, Class: class, Err: cause,
		Message: fmt.Sprintf("the server of the model %s %s", job.Quote(m.Name), did)}
}

// refused is the fault of an answer whose status is an error.
func (c *call) refused(ctx context.Context, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil && ctx.Err() != nil {
		return c.broken(ctx, err)
	}
	f := c.model.byStatus(resp.StatusCode, fmt.Sprintf(" (%d)", resp.StatusCode), c.model.said(body))
	f.RetryAfter = retryAfter(resp.Header, time.Now())
	return f
}

// byStatus is the table of what follows an HTTP status. The message goes on with
// how the status came, and with what the server said.
func (m *model) byStatus(status int, how, said string) *job.Fault {
	code, class, did := "upstream_rejected", job.Final, "does not accept the request"
	switch {
	case status == http.StatusUnauthorized:
		code, did = "upstream_unauthorized", "refuses the API key: "+m.keyAdvice()
	case status == http.StatusForbidden:
		code, did = "upstream_forbidden", "does not allow this with the API key it was given: "+m.keyAdvice()
	case status == http.StatusNotFound:
		code, did = "upstream_not_found", fmt.Sprintf("does not know the model %s, or the path %s: check the model's name and base_url",
			job.Quote(m.Upstream), m.url.Path)
	case status >= 300 && status < 400:
		code, did = "upstream_redirect", "redirects elsewhere, which is not followed: set base_url to where it leads"
	case status == http.StatusRequestTimeout:
		code, class, did = codeTimeout, job.Retryable, "took too long"
	case status == http.StatusConflict || status == http.StatusTooEarly:
		code, class, did = codeConflict, job.Retryable, "cannot do it at this moment"
	case status == http.StatusTooManyRequests:
		code, class, did = codeRateLimited, job.Wait, "asks to wait: too many requests"
	case status == http.StatusServiceUnavailable:
		code, class, did = "upstream_unavailable", job.Wait, "asks to wait: it is not available"
	case status >= 500:
		code, class, did = "upstream_error", job.Retryable, "failed"
	}
	did += how
	if said != "" {
		did += "; it says: " + said
	}
	return m.fault(code, class, did, nil)
}

func (m *model) keyAdvice() string {
	if m.APIKeyEnv == "" {
		return "name the variable that holds it as the model's api_key_env"
	}
	return "check the variable " + m.APIKeyEnv
}

// inStream is the fault of an error that comes inside an answer. Servers put a
// status into its code, or words into its code or type.
func (m *model) inStream(raw json.RawMessage) *job.Fault {
	var e struct{ Code, Type, Status any }
	_ = json.Unmarshal(raw, &e)
	status := http.StatusInternalServerError
	for _, v := range []any{e.Code, e.Status, e.Type} {
		if s := statusOf(fmt.Sprint(v)); s != 0 {
			status = s
			break
		}
	}
	return m.byStatus(status, " (in its answer)", m.said(encode(map[string]json.RawMessage{"error": raw})))
}

func statusOf(word string) int {
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

// said is what an error body tells a person: bounded, printable, and without the
// key, which some servers repeat.
func (m *model) said(body []byte) string {
	text := strings.ToValidUTF8(sentence(body), "�")
	if m.APIKey != "" {
		text = strings.ReplaceAll(text, m.APIKey, "[the key]")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	const most = 300
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// sentence finds the message in the shapes that servers give it.
func sentence(body []byte) string {
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

// wrongType is the fault of an answer that is neither a stream nor JSON.
func (m *model) wrongType(kind string) *job.Fault {
	if kind == "" {
		kind = "nothing that it names"
	}
	return m.fault(codeBadAnswer, job.Retryable,
		fmt.Sprintf("answered with %s instead of an event stream or JSON: check base_url, which often ends in /v1", kind), nil)
}

func (c *call) tooLarge() *job.Fault {
	return c.model.fault("upstream_too_large", job.Final,
		fmt.Sprintf("gave an answer of more than %d MiB", job.MaxOutput>>20), nil)
}

// broken judges an exchange that broke off: because its context ended, because a
// bound was passed, or because of the network.
func (c *call) broken(ctx context.Context, err error) error {
	var f *job.Fault
	switch {
	case errors.Is(context.Cause(ctx), errNoAnswer):
		return c.model.fault(codeTimeout, job.Retryable,
			fmt.Sprintf("did not answer within %v; the queue's timeouts.request_s sets how long it may take", c.patience), err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &f):
		return f
	}
	return c.model.network(err)
}

// network is the fault of a network that failed.
func (m *model) network(err error) *job.Fault {
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	const unreachable, badTLS = "upstream_unreachable", "upstream_tls"
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return m.fault(unreachable, job.Retryable, fmt.Sprintf("cannot be found: there is no host %s; check base_url", m.url.Hostname()), err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return m.fault(badTLS, job.Final, fmt.Sprintf("at %s does not speak https: begin its base_url with http://", m.url.Host), err)
	case errors.As(err, &cert):
		return m.fault(badTLS, job.Final, fmt.Sprintf("at %s has a certificate that is not trusted here", m.url.Host), err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return m.fault(unreachable, job.Wait, fmt.Sprintf("is not there: nobody listens at %s; start it, or check base_url", m.url.Host), err)
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return m.fault(unreachable, job.Wait, fmt.Sprintf("at %s cannot be reached", m.url.Host), err)
	}
	return m.fault("upstream_disconnected", job.Retryable, "broke off the connection", err)
}

// retryAfter is how long a server asks us to wait: retry-after-ms, or Retry-After as
// seconds or as a date (RFC 9110, section 10.2.3). 0 when it does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return bounded(ms / 1000)
	}
	after := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(after, 64); err == nil {
		return bounded(s)
	}
	if at, err := http.ParseTime(after); err == nil {
		return bounded(at.Sub(now).Seconds())
	}
	return 0
}

func bounded(seconds float64) time.Duration {
	if math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, job.MaxDuration.Seconds()) * float64(time.Second))
}
