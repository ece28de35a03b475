package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// Submit a question and print the answer as it comes.
func Example() {
	server := pretend()
	defer server.Close()

	ctx := context.Background()
	c, err := client.New(server.URL) // such as http://127.0.0.1:8080
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	job, err := c.Submit(ctx, client.Submission{
		Queue: "chat",
		Input: map[string]any{"messages": []map[string]string{{"role": "user", "content": "How do tides work?"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for event, err := range c.Watch(ctx, job.ID, 0) {
		switch {
		case err != nil:
			fmt.Println(err)
		case event.Type == client.OutputEvent:
			fmt.Print(event.Entry.Text())
		case event.Type == client.DoneEvent:
			fmt.Printf("\n%s\n", event.Job.Status)
		}
	}
	// Output:
	// The moon pulls.
	// succeeded
}

// Wait for a job, however long it takes and however often the server is restarted
// meanwhile, but no longer than an hour.
func ExampleClient_SubmitAndWait() {
	server := pretend()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	job, err := c.SubmitAndWait(ctx, client.Submission{
		Queue:          "sim",
		Input:          json.RawMessage(`{"duration_ms": 100}`),
		IdempotencyKey: "order-4711", // this order makes one job, also if this program is run again
		Timeouts:       client.Timeouts{RunHard: time.Minute},
	})
	switch {
	case err != nil:
		fmt.Println("no job:", err)
	case job.Status != client.Succeeded:
		fmt.Println("no result:", job.Error.Message)
	default:
		fmt.Printf("%s\n", job.Result)
	}
	// Output:
	// {"echo":7}
}

// Ask what a refusal was by its code.
func ExampleError() {
	server := pretend()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	_, err := c.Get(context.Background(), "job_of_someone_else")
	var refused *client.Error
	if errors.As(err, &refused) && refused.Code == client.CodeNotFound {
		fmt.Println(refused.Status, refused.Message)
	}
	// Output:
	// 404 there is no such job
}

// Go through all failed jobs of a queue and try them again.
func ExampleClient_List() {
	server := pretend()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	ctx := context.Background()
	for job, err := range c.List(ctx, client.ListOptions{Filter: client.Filter{Queue: "chat", Status: client.Failed}}) {
		if err != nil {
			fmt.Println(err)
			break
		}
		again, err := c.Retry(ctx, job.ID)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(again.ID, again.Status)
	}
	// Output:
	// job_1 queued
	// job_2 queued
}

// pretend is a server that knows the answers of the examples.
func pretend() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		say := func(text string) { _, _ = io.WriteString(w, text) }
		switch path := r.URL.Path; {
		case r.Header.Get("Prefer") != "":
			say(`{"id":"job_1","status":"succeeded","result":{"echo":7}}`)
		case r.Method == http.MethodPost && path == "/v1/jobs":
			w.WriteHeader(http.StatusAccepted)
			say(`{"id":"job_1","status":"queued"}`)
		case path == "/v1/jobs":
			say(`{"data":[{"id":"job_1"},{"id":"job_2"}],"next":null}`)
		case strings.HasSuffix(path, "/retry"):
			say(`{"id":"` + strings.Split(path, "/")[3] + `","status":"queued"}`)
		case strings.HasSuffix(path, "/events"):
			w.Header().Set("Content-Type", "text/event-stream")
			say("event: output\ndata: {\"seq\":1,\"kind\":\"text\",\"data\":\"The moon \"}\n\n")
			say("event: output\ndata: {\"seq\":2,\"kind\":\"text\",\"data\":\"pulls.\"}\n\n")
			say("event: done\ndata: {\"status\":\"succeeded\",\"cursor\":2}\n\n")
		default:
			w.WriteHeader(http.StatusNotFound)
			say(`{"code":"not_found","detail":"there is no such job"}`)
		}
	}))
}
