package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client sends requests to one server. Any number of goroutines may use it at once;
// they share its connections. The zero value does not work: use [New].
type Client struct {
	// set once
	base         url.URL // without a trailing slash
	transport    http.RoundTripper
	ownTransport *http.Transport // the transport that Close closes; nil when the caller supplied one
	user         string
	key          string // "" for none
	agent        string
	retries      int
	timeout      time.Duration
	onRetry      func(Retry)
}

// Option configures a new client.
type Option func(*Client)

// WithTransport sends every request through rt instead of the client's own transport.
// [Client.Close] does not close rt. The client follows no redirects and keeps no
// cookies, because the server uses neither.
func WithTransport(rt http.RoundTripper) Option { return func(c *Client) { c.transport = rt } }

// WithUser sets the user that owns the jobs, in the header X-User-ID. The server
// trusts the header only from programs on its own machine. Without a trusted header the
// user is "local".
func WithUser(user string) Option { return func(c *Client) { c.user = user } }

// WithKey sends an API key of 'meanwhile key create', in the header Authorization. A server
// that has keys refuses every call without one.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithUserAgent sets the header User-Agent. The default is "meanwhile-go".
func WithUserAgent(agent string) Option { return func(c *Client) { c.agent = agent } }

// WithRetries sets how often a call that is safe to repeat is retried after its first
// try. The default is 3. With 0 or less the client retries nothing, and a submission
// carries only the idempotency key that the caller set.
func WithRetries(n int) Option { return func(c *Client) { c.retries = max(n, 0) } }

// WithTimeout limits how long one try waits for its answer, in addition to the time of
// a long-poll. The default is 30 seconds. With 0 or less only the context limits a call.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = max(d, 0) } }

// WithRetryHook calls f before each wait for another try, in the goroutine of the
// waiting call. f can tell the user that the server is unavailable.
func WithRetryHook(f func(Retry)) Option { return func(c *Client) { c.onRetry = f } }

// New creates a client for the server at baseURL, such as "http://127.0.0.1:8080" or
// "https://example.com/meanwhile". It does not connect. It returns an error for an
// invalid URL, and for a user, key or user agent that is not a valid header value.
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
	if err := checkHeaderValue("key", c.key); err != nil {
		return nil, errors.New("client: the key cannot be sent: it has a control character, or begins or ends with a space")
	}
	if c.transport == nil {
		c.ownTransport = newTransport()
		c.transport = c.ownTransport
	}
	return c, nil
}

// checkHeaderValue returns an error for text that is not a valid header value. A
// transport refuses control characters. A server trims spaces at both ends, so that it
// would read a different value.
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
	// A query or a fragment would be lost: every request sets its own query.
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("client: the server's URL is %q; it must end with its path", text)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// newTransport returns a transport that keeps many idle connections to one server, so
// that a busy program does not open a connection for each request.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		// An upload waits until the server asks for the files (100 Continue). Some
		// proxies never ask: they get the files after this time.
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
	}
}

// Close closes the idle connections of the client's own transport. It does not close a
// transport set by [WithTransport]. The client may be used again afterwards.
func (c *Client) Close() {
	if c.ownTransport != nil {
		c.ownTransport.CloseIdleConnections()
	}
}
