package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Filter selects jobs. A job must match every field that is set. Zero fields are ignored.
type Filter struct {
	Queue     string
	Status    Status
	Key       *string // nil for all keys; "" is a key too
	ErrorCode string  // error code of the last failed attempt
	// CreatedAfter and CreatedBefore limit the time of the submission. Both are exclusive.
	CreatedAfter, CreatedBefore time.Time
	Metadata                    map[string]string // the job must have all of these pairs
	// All selects every job. [Client.CancelAll], [Client.RetryAll] and [Client.DeleteAll]
	// require it when no other field is set. [Client.List] and [Client.Page] ignore it.
	All bool
}

// ListOptions selects jobs and pages. The zero value selects all jobs from the newest.
type ListOptions struct {
	Filter
	Limit int    // jobs per page, 1 to 100; 0 for the server's default
	After string // cursor of the page, from Page.Next; "" for the first page
}

// Page is a page of jobs, newest first.
type Page struct {
	Jobs []Job  `json:"data"`
	Next string `json:"next"` // cursor of the next page; "" on the last page
}

// Page returns one page of jobs. A page may hold fewer jobs than the limit, even none,
// although more follow: check Next, not the length.
func (c *Client) Page(ctx context.Context, o ListOptions) (*Page, error) {
	p := new(Page)
	_, err := c.json(ctx, &call{method: http.MethodGet, path: "/v1/jobs", query: o.query()}, p)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// List iterates over all jobs that o selects, newest first. It requests pages as they
// are needed and ends after an error. It returns no job twice, and may miss jobs that
// are submitted during the iteration.
func (c *Client) List(ctx context.Context, o ListOptions) iter.Seq2[Job, error] {
	return func(yield func(Job, error) bool) {
		for {
			p, err := c.Page(ctx, o)
			if err != nil {
				yield(Job{}, err)
				return
			}
			for _, j := range p.Jobs {
				if !yield(j, nil) {
					return
				}
			}
			// A cursor that does not move would make the loop endless.
			if p.Next == "" || p.Next == o.After {
				return
			}
			o.After = p.Next
		}
	}
}

func (o *ListOptions) query() string {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("queue", o.Queue)
	set("status", string(o.Status))
	set("error_code", o.ErrorCode)
	set("created_after", formatTime(o.CreatedAfter))
	set("created_before", formatTime(o.CreatedBefore))
	set("after", o.After)
	for name, value := range o.Metadata {
		q.Set("metadata."+name, value)
	}
	if o.Key != nil {
		q.Set("key", *o.Key)
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q.Encode()
}

// formatTime formats a time for a query; "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
