package client

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client speaks to one server. It is safe for any number of goroutines, which is
// how it should be used: its connections are shared. The zero value is of no use;
// see [New].
type Client struct {
	// Set once.
	base    url.URL // without a slash at its end
	transport    http.RoundTripper
	ownTransport     *http.Transport // the one that Close closes; nil when the caller brought trip
	user    string
	agent   string
	retries int
	timeout time.Duration
	onRetry func(Retry)
}

// Option changes how a new client behaves.
type Option func(*Client)

// WithTransport sends every request through rt instead of a transport of the
// client's own. Redirects are not followed and cookies not kept: the server uses
// neither.
func WithTransport(rt http.RoundTripper) Option { return func(c *Client) { c.transport = rt } }

// WithUser says whose jobs they are, in the header X-User-ID. The server believes
// it from programs on its own machine only; everyone else, and whoever sends none,
// is the user "local".
func WithUser(user string) Option { return func(c *Client) { c.user = user } }

// WithUserAgent sets the header User-Agent.
func WithUserAgent(agent string) Option { return func(c *Client) { c.agent = agent } }

// WithRetries sets how often a call that is safe to repeat is repeated after its
// first try; 3 unless told otherwise. With 0 nothing is repeated, and a submit
// carries no idempotency key but the caller's own.
func WithRetries(n int) Option { return func(c *Client) { c.retries = max(n, 0) } }

// WithTimeout sets how long one try may go without an answer, beyond the time that
// the server was asked to hold it; 30 seconds unless told otherwise. With 0 only
// the context bounds a call.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = max(d, 0) } }

// WithRetryHook calls f before each wait for another try, in the goroutine of the
// call that waits. A command line says there that the server is away.
func WithRetryHook(f func(Retry)) Option { return func(c *Client) { c.onRetry = f } }

// New makes a client for the server at baseURL, such as "http://127.0.0.1:8080" or
// "https://example.com/meanwhile". It does not connect yet. The error says what is
// wrong with the URL, or with a name that is to stand in a header.
func New(baseURL string, options ...Option) (*Client, error) {
	base, err := parseBaseURL(baseURL)
	if err != nil {
		return nil, err
	}
	c := &Client{base: *base, agent: "meanwhile-go", retries: 3, timeout: 30 * time.Second}
	for _, set := range options {
		set(c)
	}
	if err := checkHeaderValue("user", c.user); err != nil {
		return nil, err
	}
	if err := checkHeaderValue("user agent", c.agent); err != nil {
		return nil, err
	}
	if c.transport == nil {
		c.ownTransport = newTransport()
		c.transport = c.ownTransport
	}
	return c, nil
}

// sendable says why a text cannot stand in a header; nil when it can. A transport
// refuses control characters, and a server does not see spaces at the ends: it would
// take the text for another one.
func checkHeaderValue(what, text string) error {
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("client: the %s %q cannot be sent: it has a control character", what, text)
	case strings.Trim(text, " ") != text:
		return fmt.Errorf("client: the %s %q cannot be sent: it begins or ends with a space", what, text)
	}
	return nil
}

func parseBaseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("client: the server's URL is %q; it must look like http://127.0.0.1:8080", text)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("client: the server's URL is %q; its port must be 1 to 65535", text)
		}
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("client: the server's URL is %q; it must end with its path", text)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// newTransport keeps as many idle connections to the one server as callers use at
// once, so that a busy program does not open a new one for each request.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		// Files are sent once the server asks for them; one that does not know how to
		// ask gets them after this.
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
	}
}

// Close lets go of idle connections. A transport that the caller brought is the
// caller's to close. The client may be used again afterwards.
func (c *Client) Close() {
	if c.ownTransport != nil {
		c.ownTransport.CloseIdleConnections()
	}
}
