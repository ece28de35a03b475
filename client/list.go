package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Filter selects jobs. What is zero selects nothing; what is set must be met.
type Filter struct {
	Queue     string
	Status    Status
	Key       *string // nil for all; the empty key is a key like any other
	ErrorCode string  // of the last failed attempt
	// CreatedAfter and CreatedBefore bound when the job was submitted, themselves
	// excluded.
	CreatedAfter, CreatedBefore time.Time
	Metadata                    map[string]string // pairs that the job must have, all of them
	// All selects every job in [Client.CancelAll], [Client.RetryAll] and
	// [Client.DeleteAll], which refuse an empty filter. Lists do not need it.
	All bool
}

// ListOptions selects jobs; the zero value selects all of them.
type ListOptions struct {
	Filter
	Limit int    // jobs a page, 1 to 100; 0 for the server's default
	After string // the cursor of a page: a Page's Next
}

// Page is a page of jobs, newest first.
type Page struct {
	Jobs []Job  `json:"data"`
	Next string `json:"next"` // the cursor of the page after it; "" when this is the last
}

// Page returns one page of jobs. It may be shorter than its limit although more
// follow: ask Next, not the length.
func (c *Client) Page(ctx context.Context, o ListOptions) (*Page, error) {
	p := new(Page)
	_, err := c.json(ctx, &call{method: http.MethodGet, path: "/v1/jobs", query: o.query()}, p)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// List goes through all jobs that o selects, newest first, asking for a page when
// it is needed. After an error it ends. Jobs submitted meanwhile may be missing;
// none comes twice.
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

// timeText is a time as the server reads it, "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
