package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Get returns a job as it is now. [CodeNotFound] when there is none of that id, or
// it is someone else's.
func (c *Client) Get(ctx context.Context, id string) (*Job, error) {
	j, _, err := c.get(ctx, id, 0)
	return j, err
}

func (c *Client) get(ctx context.Context, id string, wait time.Duration) (*Job, answer, error) {
	j := new(Job)
	a, err := c.json(ctx, &call{method: http.MethodGet, path: jobPath(id, ""), wait: wait}, j)
	if err != nil {
		return nil, a, err
	}
	return j, a, nil
}

// Wait returns the job when it has ended, or with ctx. It asks again for as long
// as it takes, also through restarts of the server; only until the server has
// answered once is it bounded by the client's retries.
func (c *Client) Wait(ctx context.Context, id string) (*Job, error) {
	reached := false
	for failures := 0; ; {
		asked := time.Now()
		j, a, err := c.get(ctx, id, maxWait)
		switch {
		case err != nil:
			failures++
			if err := c.waitToPoll(ctx, reached, failures, err); err != nil {
				return nil, err
			}
			continue
		case j.Status.Ended():
			return j, nil
		}
		reached, failures = true, 0
		if a.header.Get("Preference-Applied") == "" || time.Since(asked) < minPause {
			// The server is stopping, or something in between did not let it hold the request.
			if err := sleep(ctx, max(time.Duration(j.PollAfterMS)*time.Millisecond, minPause)); err != nil {
				return nil, err
			}
		}
	}
}

// endure waits before another try of whoever follows a job, or returns why there is
// none: the server was never reached, ctx ended, or the answer was a refusal.
func (c *Client) waitToPoll(ctx context.Context, known bool, try int, err error) error {
	if !known || !unavailable(err) {
		return err
	}
	return c.waitToRetry(ctx, try, err)
}

// Output is what a job has said after a cursor.
type Output struct {
	Job     Job     `json:"job"`
	Entries []Entry `json:"data"`
	Cursor  int64   `json:"cursor"` // after the last of Entries: where to go on
}

// Output returns what a job has said after an entry's number, 0 for all. With a
// wait of up to a minute the answer is held until there is more, or the job has
// changed or ended, or the wait is over: streaming for networks that cut streams.
// One answer may hold less than all there is; go on from its Cursor until it has
// reached the job's.
func (c *Client) Output(ctx context.Context, id string, after int64, wait time.Duration) (*Output, error) {
	out := new(Output)
	_, err := c.json(ctx, &call{
		method: http.MethodGet, path: jobPath(id, "/output"), wait: wait,
		query: "after=" + strconv.FormatInt(after, 10),
	}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Result is what a job came to.
type Result struct {
	ContentType string
	Body        []byte // at most 64 MiB
}

// Result returns what a succeeded job came to, as it is. Refusals: [CodeNotFinished]
// before it has ended; of a job that ended otherwise, the error it ended with.
func (c *Client) Result(ctx context.Context, id string) (*Result, error) {
	a, err := c.send(ctx, &call{method: http.MethodGet, path: jobPath(id, "/result")})
	if err != nil {
		return nil, err
	}
	return &Result{ContentType: a.header.Get("Content-Type"), Body: a.body}, nil
}

// jobPath is the path of a job, with whatever the caller passed as an id kept in
// its place.
func jobPath(id, below string) string { return "/v1/jobs/" + url.PathEscape(id) + below }
