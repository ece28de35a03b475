package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// Ask for a job now and then, as a program does that must not wait.
func ExampleClient_Get() {
	c, stop := callExample()
	defer stop()
	job, err := c.Get(context.Background(), "job_1")
	if err != nil {
		fmt.Println(err)
		return
	}
	if !job.Status.Ended() {
		next := time.Duration(job.PollAfterMS) * time.Millisecond
		fmt.Printf("%s, %.0f%%, ask again in %s\n", job.Status, job.Progress.Percent, next)
	}
	// Output:
	// running, 40%, ask again in 500ms
}

// Wait for a job that was submitted before, for at most a minute.
func ExampleClient_Wait() {
	c, stop := callExample()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	job, err := c.Wait(ctx, "job_1")
	switch {
	case err != nil: // the minute is over, or the server refused
		fmt.Println(err)
	case job.Status == client.Failed:
		fmt.Println(job.Error.Code)
	default:
		fmt.Println(job.Status)
	}
	// Output:
	// succeeded
}

// Write a result of any type and size to a file.
func ExampleClient_Result() {
	c, stop := callExample()
	defer stop()
	r, err := c.Result(context.Background(), "job_1")
	if client.CodeOf(err) == client.CodeNotFinished {
		return // not yet
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(r.ContentType, " ")
	_, _ = os.Stdout.Write(r.Body)
	// Output:
	// text/plain The moon pulls.
}

// Cancel a job, then remove it with its output and result.
func ExampleClient_Cancel() {
	c, stop := callExample()
	defer stop()
	ctx := context.Background()
	job, err := c.Cancel(ctx, "job_1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.Status, "asked:", !job.CancelRequestedAt.IsZero()) // running: its work stops soon
	if _, err := c.Wait(ctx, job.ID); err != nil {
		fmt.Println(err)
	}
	fmt.Println(c.Delete(ctx, job.ID))
	// Output:
	// running asked: true
	// <nil>
}

// A page of an album's jobs, for a list with a button "more".
func ExampleClient_Page() {
	c, stop := callExample()
	defer stop()
	page, err := c.Page(context.Background(), client.ListOptions{
		Filter: client.Filter{Metadata: map[string]string{"album": "summer"}, CreatedAfter: time.Now().AddDate(0, 0, -7)},
		Limit:  20,
		After:  "", // later: Next of the page before
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(page.Jobs), page.Next != "")
	// Output:
	// 2 true
}

// After an outage, run the failed jobs of a queue again; cancel and remove those of a
// customer who has left.
func ExampleClient_RetryAll() {
	c, stop := callExample()
	defer stop()
	ctx, customer := context.Background(), "customer-9"
	fmt.Println(c.RetryAll(ctx, client.Filter{Queue: "chat", Status: client.Failed, ErrorCode: "upstream_unavailable"}))
	fmt.Println(c.CancelAll(ctx, client.Filter{Key: &customer}))
	fmt.Println(c.DeleteAll(ctx, client.Filter{Key: &customer}))
	// Output:
	// 3 <nil>
	// 3 <nil>
	// 3 <nil>
}

// Keep jobs from running during an upgrade of what they call. Submissions are accepted.
func ExampleClient_Pause() {
	c, stop := callExample()
	defer stop()
	ctx := context.Background()
	queues, err := c.Queues(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, q := range queues {
		if _, err := c.Pause(ctx, q.Name); err != nil {
			fmt.Println(err)
		}
	}
	q, err := c.Resume(ctx, "chat")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(queues), q.Paused)
	// Output:
	// 2 false
}

// Give the page of a user who has logged in a token, with which it asks and watches itself.
func ExampleClient_CreateToken() {
	c, stop := callExample()
	defer stop()
	token, err := c.CreateToken(context.Background(), client.TokenOptions{TTL: 10 * time.Minute, Queues: []string{"chat"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.User, token.Token, token.RenewableUntil)
	// Output:
	// ann ut_k3y1.W7mS 2030-02-01 09:00:00 +0000 UTC
}

// Set a clock by the name that a user gave.
func ExampleTimeouts_Set() {
	var t client.Timeouts
	fmt.Println(t.Set("run_hard", time.Minute), t.RunHard, t.Set("no_such_clock", time.Minute))
	// Output:
	// true 1m0s false
}

// callExample returns a client of a server that answers one call of each kind.
func callExample() (c *client.Client, stop func()) {
	answers := map[string]string{
		"GET /v1/jobs/job_1":          `{"id":"job_1","status":"running","progress":{"percent":40},"poll_after_ms":500}`,
		"GET /v1/jobs/job_1/result":   `The moon pulls.`,
		"POST /v1/jobs/job_1/cancel":  `{"id":"job_1","status":"running","cancel_requested_at":"2030-01-31T09:00:00Z"}`,
		"GET /v1/jobs":                `{"data":[{"id":"job_1"},{"id":"job_2"}],"next":"later"}`,
		"POST /v1/jobs/cancel":        `{"done":3}`,
		"POST /v1/jobs/retry":         `{"done":3}`,
		"POST /v1/jobs/delete":        `{"done":3}`,
		"GET /v1/queues":              `{"data":[{"name":"chat"},{"name":"ocr"}]}`,
		"POST /v1/queues/chat/pause":  `{"name":"chat","paused":true}`,
		"POST /v1/queues/ocr/pause":   `{"name":"ocr","paused":true}`,
		"POST /v1/tokens":             `{"token":"ut_k3y1.W7mS","user":"ann","expires_at":"2030-01-31T09:10:00Z","renewable_until":"2030-02-01T09:00:00Z"}`,
		"POST /v1/queues/chat/resume": `{"name":"chat"}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(call, "/result") {
			w.Header().Set("Content-Type", "text/plain")
		}
		if wait := r.Header.Get("Prefer"); wait != "" {
			w.Header().Set("Preference-Applied", wait)
			answers[call] = `{"id":"job_1","status":"succeeded"}`
		}
		_, _ = io.WriteString(w, answers[call])
	}))
	c, err := client.New(server.URL)
	if err != nil {
		fmt.Println(err)
	}
	return c, func() { c.Close(); server.Close() }
}
