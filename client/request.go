package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	maxAnswer = 80 << 20         // bytes of an answer; the largest answer is a result
	maxWait   = 60 * time.Second // the server's limit for a long-poll
)

// call is one request to the server. It may take several tries.
type call struct {
	method      string
	path        string // below the base URL, escaped
	query       string
	body        []byte
	form        *form         // instead of body, for a submission with files
	key         string        // Idempotency-Key
	wait        time.Duration // Prefer: wait
	accept      string
	lastEventID string // Last-Event-ID
	// notIdempotent says that a second try could have a different effect. Such a call is
	// only repeated when the server certainly did not process it.
	notIdempotent bool

	upload *upload // the form as the body of the current try
}

// answer is a complete response.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// json makes the call and decodes the answer into out, unless out is nil.
func (c *Client) json(ctx context.Context, k *call, out any) (answer, error) {
	a, err := c.send(ctx, k)
	if err != nil || out == nil {
		return a, err
	}
	switch out := out.(type) {
	case *Job:
		err = out.UnmarshalJSON(a.body) // json.Unmarshal would first scan the whole body itself
	case *batchAnswer:
		err = out.read(a.body)
	default:
		err = json.Unmarshal(a.body, out)
	}
	if err != nil {
		return a, badAnswer(a.status, err)
	}
	return a, nil
}

// send makes the call. It retries the call if that is safe and the error is temporary.
func (c *Client) send(ctx context.Context, k *call) (answer, error) {
	if err := checkHeaderValue("idempotency key", k.key); err != nil {
		return answer{}, err
	}
	for try := 1; ; try++ {
		a, err := c.try(ctx, k)
		if err == nil || try > c.retries || !safeToRetry(k, err) {
			return a, err
		}
		if err := c.waitToRetry(ctx, try, err); err != nil {
			return answer{}, err
		}
	}
}

// try makes the call once, within the client's timeout, and reads the whole answer.
func (c *Client) try(ctx context.Context, k *call) (answer, error) {
	if k.form != nil {
		return c.tryForm(ctx, k)
	}
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.timeout+k.wait, errNoAnswer)
		defer cancel()
	}
	return c.exchange(ctx, k)
}

// exchange sends the request and reads the whole answer.
func (c *Client) exchange(ctx context.Context, k *call) (answer, error) {
	res, err := c.open(ctx, k)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := readAll(res)
	switch {
	case errors.Is(err, errAnswerTooLarge):
		return answer{}, badAnswer(res.StatusCode, err)
	case err != nil:
		return answer{}, c.noAnswer(ctx, k, err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: body}, nil
}

// open makes the call once and returns a successful response. The caller reads and closes
// its body.
func (c *Client) open(ctx context.Context, k *call) (*http.Response, error) {
	res, err := c.transport.RoundTrip(c.request(ctx, k))
	if err != nil {
		return nil, c.noAnswer(ctx, k, err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, readRefusal(res)
	}
	return res, nil
}

// request builds the HTTP request. It does not use http.NewRequest, which parses the URL
// each time: that takes longer than everything else here.
func (c *Client) request(ctx context.Context, k *call) *http.Request {
	u := c.base
	u.Path += k.path
	if plain, err := url.PathUnescape(k.path); err == nil && plain != k.path {
		// Both forms are set, so that the escapes of an id are sent unchanged.
		u.Path, u.RawPath = c.base.Path+plain, c.base.EscapedPath()+k.path
	}
	u.RawQuery = k.query
	r := new(http.Request).WithContext(ctx)
	r.Method, r.URL, r.Host, r.Header = k.method, &u, u.Host, c.header(k)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	if k.body != nil {
		r.ContentLength = int64(len(k.body))
		r.Body = io.NopCloser(bytes.NewReader(k.body))
		// The transport uses GetBody to send again when an idle connection was closed.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(k.body)), nil }
	}
	if k.upload != nil {
		r.Body, r.ContentLength = k.upload, k.upload.size
	}
	return r
}

func (c *Client) header(k *call) http.Header {
	h := make(http.Header, 6)
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{value}
		}
	}
	set("User-Agent", c.agent)
	set("X-User-Id", c.user)
	if c.key != "" {
		set("Authorization", "Bearer "+c.key)
	}
	set("Accept", k.accept)
	set("Idempotency-Key", k.key)
	set("Last-Event-Id", k.lastEventID)
	if k.body != nil {
		set("Content-Type", "application/json")
	}
	if k.upload != nil {
		set("Content-Type", k.upload.contentType)
		set("Expect", "100-continue") // lets the server refuse before the files are sent
	}
	if k.wait > 0 {
		set("Prefer", "wait="+waitSeconds(k.wait))
	}
	return h
}

// waitSeconds formats a wait as whole seconds, rounded up, for the header Prefer
// (RFC 7240).
func waitSeconds(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(min(d, maxWait).Seconds())))
}

var errAnswerTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)

// readAll reads the body of a response, up to maxAnswer bytes.
func readAll(res *http.Response) ([]byte, error) {
	// With a known length one allocation is enough, and a length over the limit is refused
	// unread.
	switch n := res.ContentLength; {
	case n > maxAnswer:
		return nil, errAnswerTooLarge
	case n >= 0:
		body := make([]byte, n)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errAnswerTooLarge
	}
	return body, err
}

// badAnswer returns the error for an answer that is not from a Meanwhile server.
func badAnswer(status int, err error) *Error {
	return &Error{
		Status: status, Code: CodeBadAnswer, Err: err,
		Message: "the answer is not one of a Meanwhile server; is the URL right?",
	}
}
