package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// Submit a question and wait for the answer.
func Example() {
	server := fakeServer()
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
	if job, err = c.Wait(ctx, job.ID); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %s\n", job.Status, job.Result)
	// Output:
	// succeeded: "The moon pulls."
}

// Configure a client with every option.
func ExampleNew() {
	server := fakeServer()
	defer server.Close()
	c, err := client.New(server.URL,
		client.WithTransport(&http.Transport{DisableKeepAlives: true}), // instead of the client's own
		client.WithUser("ann"), // trusted from programs on the server's machine
		client.WithUserAgent("shop/1.0"),
		client.WithRetries(5),
		client.WithTimeout(10*time.Second),
		client.WithRetryHook(func(r client.Retry) {
			fmt.Printf("try %d failed (%v), the next one in %s\n", r.Try, r.Err, r.Delay)
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	q, err := c.Queue(context.Background(), "chat")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(q.Name, q.Executor, q.Counts.Unfinished())
	// Output:
	// chat llm 3
}

// Handle every type of event. When an attempt begins, the output of earlier attempts no
// longer counts.
func ExampleClient_Watch() {
	server := fakeServer()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	var text strings.Builder
	for event, err := range c.Watch(context.Background(), "job_1", 0) {
		if err != nil {
			fmt.Println(err) // a later Watch can continue after the last event.Cursor
			return
		}
		switch event.Type {
		case client.SnapshotEvent:
			fmt.Println("status:", event.Job.Status)
		case client.AttemptEvent: // an entry of kind client.KindAttempt
			text.Reset()
		case client.ProgressEvent: // an entry of kind client.KindProgress
			fmt.Printf("progress: %.0f%%\n", event.Entry.Progress().Percent)
		case client.OutputEvent:
			switch event.Entry.Kind {
			case client.KindText:
				text.WriteString(event.Entry.Text())
			case client.KindLog:
				fmt.Println("log:", event.Entry.Text())
			case client.KindJSON:
				fmt.Printf("event: %s\n", event.Entry.Data)
			}
		case client.DoneEvent:
			fmt.Printf("%s: %q\n", event.Job.Status, text.String())
		}
	}
	// Output:
	// status: running
	// log: asking the model
	// progress: 50%
	// event: {"tokens":2}
	// succeeded: "The moon pulls."
}

// Set what differs from the settings of the queue.
func ExampleSubmission() {
	server := fakeServer()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	retryTimeouts := true
	job, err := c.Submit(context.Background(), client.Submission{
		Queue:       "sim",
		Input:       map[string]int{"duration_ms": 100},
		Key:         "customer-7", // the keys of a queue take turns
		Priority:    2,
		Delay:       time.Minute, // or RunAt
		MaxAttempts: 3,
		Timeouts:    client.Timeouts{RunHard: time.Minute, IdleOutput: client.Off},
		Retry: client.RetryPolicy{
			Backoff: time.Second, BackoffMax: time.Minute, For: time.Hour, OnTimeout: &retryTimeouts, AfterOutput: "restart",
		},
		Metadata:       map[string]string{"order": "4711"},
		AbandonAfter:   10 * time.Minute,
		IdempotencyKey: "order-4711",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.ID, job.Status)
	// Output:
	// job_1 queued
}

// Submit many jobs in one request and check each result.
func ExampleClient_SubmitBatch() {
	server := fakeServer()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	results, err := c.SubmitBatch(context.Background(), client.Batch{Jobs: []client.Submission{
		{Queue: "sim", Input: 1},
		{Queue: "nowhere", Input: 2},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		if r.Err != nil {
			fmt.Println(r.Err.Field, r.Err.Code)
			continue
		}
		fmt.Println(r.Job.ID)
	}
	// Output:
	// job_1
	// /jobs/1/queue unknown_queue
}

// Submit a job with files: one from memory, one from the disk.
func ExampleClient_SubmitFiles() {
	server := fakeServer()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	_, err := c.SubmitFiles(context.Background(), client.Submission{Queue: "ocr"},
		client.AttachBytes("note.txt", "text/plain", []byte("read only page 2")),
		client.AttachFile("no-such-scan.png"))
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// true
}

// Read output by long-polling, where a network cuts streams.
func ExampleClient_Output() {
	server := fakeServer()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	ctx, cursor := context.Background(), int64(0)
	for {
		out, err := c.Output(ctx, "job_1", cursor, time.Minute)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, entry := range out.Entries {
			fmt.Print(entry.Text())
		}
		if cursor = out.Cursor; out.Job.Status.Ended() && cursor == out.Job.Cursor {
			fmt.Println()
			return
		}
	}
	// Output:
	// The moon pulls.
}

// Submit a job and wait for at most an hour, through restarts of the server.
func ExampleClient_SubmitAndWait() {
	server := fakeServer()
	defer server.Close()
	c, _ := client.New(server.URL)
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	job, err := c.SubmitAndWait(ctx, client.Submission{
		Queue:          "sim",
		Input:          json.RawMessage(`{"duration_ms": 100}`),
		IdempotencyKey: "order-4711", // this order makes one job, even if this program runs again
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

// Check a refusal by its code.
func ExampleError() {
	server := fakeServer()
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

// Retry all failed jobs of a queue, one by one. RetryAll does it in one call.
func ExampleClient_List() {
	server := fakeServer()
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

// fakeServer returns a server that gives the answers of the examples.
func fakeServer() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		write := func(text string) { _, _ = io.WriteString(w, text) }
		event := func(name, data string) { write("event: " + name + "\ndata: " + data + "\n\n") }
		switch path := r.URL.Path; {
		case path == "/v1/queues/chat":
			write(`{"name":"chat","executor":"llm","counts":{"queued":2,"running":1}}`)
		case path == "/v1/jobs/batch":
			write(`{"object":"list","data":[{"object":"job","id":"job_1"},{"object":"error","code":"unknown_queue","field":"/jobs/1/queue"}]}`)
		case strings.HasSuffix(path, "/output"):
			write(`{"job":{"status":"succeeded","cursor":1},"data":[{"seq":1,"kind":"text","data":"The moon pulls."}],"cursor":1}`)
		case r.Method == http.MethodGet && r.Header.Get("Prefer") != "":
			write(`{"id":"job_1","status":"succeeded","result":"The moon pulls."}`)
		case r.Header.Get("Prefer") != "":
			write(`{"id":"job_1","status":"succeeded","result":{"echo":7}}`)
		case r.Method == http.MethodPost && path == "/v1/jobs":
			w.WriteHeader(http.StatusAccepted)
			write(`{"id":"job_1","status":"queued"}`)
		case path == "/v1/jobs":
			write(`{"data":[{"id":"job_1"},{"id":"job_2"}],"next":null}`)
		case strings.HasSuffix(path, "/retry"):
			write(`{"id":"` + strings.Split(path, "/")[3] + `","status":"queued"}`)
		case strings.HasSuffix(path, "/events"):
			w.Header().Set("Content-Type", "text/event-stream")
			event("snapshot", `{"status":"running"}`)
			event("output", `{"seq":1,"kind":"text","data":"The sun "}`)
			event("attempt", `{"seq":2,"kind":"attempt"}`)
			event("output", `{"seq":3,"kind":"log","data":"asking the model"}`)
			event("output", `{"seq":4,"kind":"text","data":"The moon "}`)
			event("progress", `{"seq":5,"kind":"progress","data":{"percent":50}}`)
			event("output", `{"seq":6,"kind":"text","data":"pulls."}`)
			event("output", `{"seq":7,"kind":"json","data":{"tokens":2}}`)
			event("done", `{"status":"succeeded","cursor":7}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			write(`{"code":"not_found","detail":"there is no such job"}`)
		}
	}))
}

// A program without a server submits a job in a transaction of its own: it inserts a row.
func ExampleSubmission_InboxBody() {
	s := client.Submission{Input: map[string]int{"order": 7}, Key: "ann", Delay: time.Minute}
	body, err := s.InboxBody()
	if err != nil {
		fmt.Println(err)
		return
	}
	// insert into inbox (queue, body) values ('mail', $1) returning id
	fmt.Println(string(body))
	// Output:
	// {"key":"ann","delay_s":60,"input":{"order":7}}
}
