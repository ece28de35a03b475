package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Get returns the current state of a job. The error is [CodeNotFound] for an unknown id
// and for the job of another user.
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

// Wait waits until a job has ended and returns it. A job that failed is not an error:
// see its Status. Wait continues through restarts of the server until ctx ends. The limit
// of [WithRetries] applies only until the server has answered once.
func (c *Client) Wait(ctx context.Context, id string) (*Job, error) {
	reached := false
	for failures := 0; ; {
		asked := time.Now()
		j, a, err := c.get(ctx, id, maxWait)
		switch {
		case err != nil && (!reached || !unavailable(err)):
			return nil, err
		case err != nil:
			failures++
			if err := c.waitToRetry(ctx, failures, err); err != nil {
				return nil, err
			}
			continue
		case j.Status.Ended():
			return j, nil
		}
		reached, failures = true, 0
		if a.header.Get("Preference-Applied") == "" || time.Since(asked) < minPause {
			// The server is stopping, or a proxy does not allow a long-poll. Poll instead.
			if err := sleep(ctx, max(time.Duration(j.PollAfterMS)*time.Millisecond, minPause)); err != nil {
				return nil, err
			}
		}
	}
}

// Output is a part of a job's output.
type Output struct {
	Job     Job     `json:"job"`    // the state of the job
	Entries []Entry `json:"data"`   // the entries after the requested cursor
	Cursor  int64   `json:"cursor"` // number of the last entry, for the next call
}

// Output returns the output entries of a job that follow entry number after; 0 returns
// all from the first. With a wait, the server delays an empty answer until there is
// output, the job changes status, or the wait is over. The maximum is one minute. This
// replaces streaming in networks that cut long responses. An answer may hold only part of
// the entries: continue from its Cursor until it equals the Cursor of the job.
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

// Result is the result of a succeeded job.
type Result struct {
	ContentType string // such as "application/json"
	Body        []byte // at most 64 MiB
}

// Result returns the result of a succeeded job, byte for byte. The error is
// [CodeNotFinished] before the job has ended and [CodeConflict] for a job that ended
// without success; [Error.Failure] then says why it failed.
func (c *Client) Result(ctx context.Context, id string) (*Result, error) {
	a, err := c.send(ctx, &call{method: http.MethodGet, path: jobPath(id, "/result")})
	if err != nil {
		return nil, err
	}
	return &Result{ContentType: a.header.Get("Content-Type"), Body: a.body}, nil
}

// jobPath returns the URL path of a job. It escapes the id, so that an id with a slash or
// a question mark cannot address anything else.
func jobPath(id, below string) string { return "/v1/jobs/" + url.PathEscape(id) + below }
