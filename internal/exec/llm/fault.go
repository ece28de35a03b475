package llm

import (
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// fault returns a fault whose message begins with "the server of the model …", followed by did.
func (m *model) fault(code string, class job.Class, did string, cause error) *job.Fault {
	f := &job.Fault{Code: code, Class: class,
		Message: fmt.Sprintf("the server of the model %s %s", job.Quote(m.Name), did)}
	if cause != nil {
		f.Err = m.cleanCause(cause)
	}
	return f
}

// cleanError is an error whose text is fit for a log: see [model.clean].
type cleanError struct {
	error
	text string
}

func (e cleanError) Error() string { return e.text }
func (e cleanError) Unwrap() error { return e.error }

func (m *model) cleanCause(cause error) error {
	shown := cause
	// The URL may have a secret in its query.
	if inURL, ok := errors.AsType[*url.Error](cause); ok {
		shown = inURL.Err
	}
	return cleanError{cause, m.clean(shown.Error())}
}

// statusFault returns the fault of an answer with an error status.
func (c *call) statusFault(ctx context.Context, resp *http.Response) error {
	timer := time.AfterFunc(errorTimeout, func() { c.cancel(errSlowBody) })
	body, err := readErrorBody(resp)
	timer.Stop()
	// The status says enough if only the body is late.
	late := errors.Is(context.Cause(ctx), errSlowBody) || errors.Is(context.Cause(ctx), errRequestTimeout)
	if err != nil && ctx.Err() != nil && !late {
		return c.transferFault(ctx, err)
	}
	now := serverTime(resp.Header, time.Now())
	r := readReason(body, now)
	if wait := retryAfter(resp.Header, now); wait > 0 {
		r.wait = wait
	}
	if r.wait == 0 && judge(resp.StatusCode, r) == rateLimited {
		r.wait = limitReset(resp.Header, now)
	}
	c.refused = r
	return c.model.refusalFault(resp, r)
}

// readErrorBody reads the beginning of an error body, also a compressed one. What is read before
// an error is returned with it.
func readErrorBody(resp *http.Response) (body []byte, err error) {
	src, err := decompress(resp)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(src, maxErrorBody))
}

// contentCoding returns how the body is compressed; "" if it is not, also where a server names
// something that is no compression.
func contentCoding(resp *http.Response) string {
	switch coding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))); coding {
	case "identity", "none", "utf-8", "utf8", "binary", "chunked", "8bit":
		return ""
	case "x-gzip":
		return "gzip"
	default:
		return coding
	}
}

// decompress returns a reader of the body's text. Some servers compress although they were not
// asked to.
func decompress(resp *http.Response) (io.Reader, error) {
	switch coding := contentCoding(resp); coding {
	case "gzip":
		return gzip.NewReader(resp.Body)
	case "deflate":
		return zlib.NewReader(resp.Body)
	case "":
		return resp.Body, nil
	default:
		return nil, fmt.Errorf("the body is compressed with %.40q, which was not asked for", coding)
	}
}

// refusalFault returns the fault of an answer with an error status.
func (m *model) refusalFault(resp *http.Response, r reason) *job.Fault {
	v := judge(resp.StatusCode, r)
	did := consequences[v].did
	switch v {
	case unauthorized, forbidden:
		did += ": " + m.keyAdvice()
	case notFound:
		did = fmt.Sprintf("does not know the model %s, or the path %s: check the model's name and base_url", job.Quote(m.Upstream), m.url.Path)
	// The API key must not go to another host.
	case redirected:
		did += m.target(resp) + ": set base_url to where it leads"
	}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		did = "is behind a proxy that asks for a user and a password: put them into the variable HTTPS_PROXY or HTTP_PROXY"
	}
	f := m.fault(v.code(), v.class(resp.Header), did+fmt.Sprintf(" (%d%s)", resp.StatusCode, m.way(resp.StatusCode))+m.says(r), nil)
	f.RetryAfter = r.wait
	return f
}

// target names the host that a redirect leads to.
func (m *model) target(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return ""
	}
	return " (to " + m.clean(to.Scheme+"://"+to.Host+to.Path) + ")"
}

// says returns the end of a message: the server's own words.
func (m *model) says(r reason) string {
	if text := m.clean(r.message); text != "" {
		return "; it says: " + text
	}
	return ""
}

func (m *model) keyAdvice() string {
	if m.APIKeyEnv == "" {
		return "name the variable that holds it as the model's api_key_env"
	}
	return "check the variable " + m.APIKeyEnv
}

// faultForError returns the fault of an error inside an answer.
func (c *call) faultForError(r reason) *job.Fault {
	c.refused = r
	v := judge(0, r)
	did := consequences[v].did
	if v == unauthorized || v == forbidden {
		did += ": " + c.model.keyAdvice()
	}
	f := c.model.fault(v.code(), v.class(nil), did+" (in its answer)"+c.model.says(r), nil)
	f.RetryAfter = r.wait
	return f
}

// wrongTypeFault returns the fault of an answer that is neither a stream nor JSON. text is its
// beginning.
func (m *model) wrongTypeFault(kind string, text []byte) *job.Fault {
	if len(text) == 0 {
		return m.fault(codeBadAnswer, job.Retryable, "gave an empty answer", nil)
	}
	if kind = m.clean(kind); kind == "" {
		kind = "nothing that it names"
	}
	return m.fault(codeBadAnswer, job.Retryable,
		fmt.Sprintf("answered with %s instead of an event stream or JSON: check base_url, which often ends in /v1", kind)+
			m.says(reason{message: textOfPage(text)}), nil)
}

// isBadFinish recognizes the finish reasons of an answer that was given up.
func isBadFinish(finish string) bool {
	finish = strings.ToLower(finish)
	for _, says := range []string{"error", "abort", "cancel", "fail", "timeout", "timed_out", "insufficient", "overload", "unavailable", "interrupt", "exhausted", "malformed"} {
		if strings.Contains(finish, says) {
			return true
		}
	}
	return false
}

// failure returns the part of a chunk that reports an error; nil for none. Servers report errors
// in many forms, also with the status 200.
func (k chunk) failure() []byte {
	if !isEmpty(k.err) && string(k.err) != "false" {
		return k.data
	}
	for _, choice := range k.choices {
		if !isEmpty(choice.err) && string(choice.err) != "false" {
			return choice.err
		}
	}
	if k.object == "error" || k.kind == "error" {
		return k.data
	}
	for _, m := range k.others {
		if m.name != "x_groq" {
			continue
		}
		for name, value := range members(m.value) {
			if name == "error" && !isEmpty(value) {
				return m.value
			}
		}
	}
	if len(k.choices) > 0 {
		return nil
	}
	said, coded := false, false
	for _, m := range k.others {
		switch m.name {
		case "detail", "errors", "error_code", "error_msg", "error_message":
			return k.data
		case "message", "msg":
			said = true
		case "code", "status", "status_code":
			coded = string(m.value) != "0" && string(m.value) != "200" && !strings.EqualFold(string(m.value), `"ok"`)
		case "success":
			if string(m.value) == "false" {
				return k.data
			}
		case "base_resp":
			for name, value := range members(m.value) {
				if name == "status_code" && string(value) != "0" {
					return k.data
				}
			}
		}
	}
	if said && coded {
		return k.data
	}
	return nil
}

func (c *call) tooLargeFault() *job.Fault {
	return c.model.fault(codeTooLarge, job.Final,
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
	const unreachable, badTLS = codeUnreachable, "upstream_tls"
	isOp := errors.As(err, &op)
	switch {
	// First the proxy: the server itself was not asked.
	case isOp && op.Op == "proxyconnect":
		return m.fault(unreachable, job.Wait, fmt.Sprintf("was not asked, because its proxy %s cannot be reached: start the proxy, or correct the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY", m.proxy()), err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return m.fault(unreachable, job.Retryable, fmt.Sprintf("cannot be found: there is no host %s; check base_url", m.url.Hostname()), err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return m.fault(badTLS, job.Final, fmt.Sprintf("at %s does not speak https: start its base_url with http://", m.url.Host), err)
	case errors.As(err, &cert):
		return m.fault(badTLS, job.Final, fmt.Sprintf("at %s has a certificate that is not trusted here", m.url.Host), err)
	// A restarting server refuses connections for a while, so the job waits at no cost.
	case errors.Is(err, syscall.ECONNREFUSED):
		return m.fault(unreachable, job.Wait, fmt.Sprintf("refuses connections at %s: start it, or check base_url", m.url.Host), err)
	case isOp && op.Op == "dial":
		return m.fault(unreachable, job.Wait, fmt.Sprintf("at %s cannot be reached", m.url.Host), err)
	}
	return m.fault("upstream_disconnected", job.Retryable, "broke off the connection"+m.way(http.StatusBadGateway), err)
}

// way returns by what way the server was asked, for an error that a proxy on the way may have
// made.
func (m *model) way(status int) string {
	switch status {
	case http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if proxy := m.proxy(); proxy != "" {
			return ", by way of the proxy " + proxy
		}
	}
	return ""
}

// proxy returns the address of the proxy for the model's server, without a password; "" for none.
func (m *model) proxy() string {
	transport, _ := m.client.Transport.(*http.Transport)
	if transport == nil || transport.Proxy == nil {
		return ""
	}
	proxy, err := transport.Proxy(&http.Request{URL: m.url})
	if err != nil || proxy == nil {
		return ""
	}
	return m.clean(proxy.Scheme + "://" + proxy.Host)
}
