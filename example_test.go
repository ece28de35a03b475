package meanwhile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile"
)

// Greeting is the input of the examples.
type Greeting struct {
	Name string `json:"name"`
}

// A program submits slow work and reads the result.
func Example() {
	data, remove := exampleData()
	defer remove()
	ctx, stop := context.WithCancel(context.Background())
	s, err := meanwhile.Open(ctx, meanwhile.Config{Data: data})
	if err != nil {
		log.Fatal(err)
	}
	meanwhile.Handle(s, "greet", func(_ context.Context, _ *meanwhile.Task, in Greeting) (string, error) {
		return "Hello, " + in.Name + "!", nil
	}, meanwhile.Concurrency(4))

	stopped := make(chan error)
	go func() { stopped <- s.Run(ctx) }()

	job, err := s.Submit(ctx, meanwhile.Submission{Queue: "greet", Input: Greeting{Name: "Ann"}})
	if err != nil {
		log.Fatal(err)
	}
	if job, err = s.Wait(ctx, job.ID); err != nil { // or tomorrow, or in another process
		log.Fatal(err)
	}
	text, err := meanwhile.ResultOf[string](ctx, s, job.ID)
	fmt.Println(job.Status, text, err)

	stop()
	fmt.Println(<-stopped)
	// Output:
	// succeeded Hello, Ann! <nil>
	// <nil>
}

// Configure a queue with every option.
func ExampleHandle() {
	data, remove := exampleData()
	defer remove()
	s, err := meanwhile.Open(context.Background(), meanwhile.Config{Data: data})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close() // not needed once Run was called
	meanwhile.Handle(s, "greet", func(_ context.Context, _ *meanwhile.Task, in Greeting) (string, error) {
		return "Hello, " + in.Name + "!", nil
	},
		meanwhile.Concurrency(4),                       // jobs at once
		meanwhile.MaxDepth(1000),                       // waiting jobs
		meanwhile.PerKey(1, 50),                        // running and waiting jobs of one key
		meanwhile.MaxAttempts(3),                       // failed attempts
		meanwhile.Backoff(time.Second, 30*time.Second), // before the second and later attempts
		meanwhile.RetryFor(10*time.Minute),             // limit for RetryAfter
		meanwhile.RunTimeout(time.Minute),              // of one attempt
		meanwhile.QueueTimeout(time.Hour),              // until the first attempt
	)
	// Output:
}

// A function writes output while it works. Clients follow the output or read it later.
func ExampleServer_Watch() {
	data, remove := exampleData()
	defer remove()
	ctx, stop := context.WithCancel(context.Background())
	s, err := meanwhile.Open(ctx, meanwhile.Config{Data: data})
	if err != nil {
		log.Fatal(err)
	}
	meanwhile.Handle(s, "count", func(_ context.Context, t *meanwhile.Task, to int) (int, error) {
		for i := range to {
			if err := t.Text(fmt.Sprint(i+1, " ")); err != nil {
				return 0, err
			}
		}
		return to, t.Progress(100, "Counted")
	})
	stopped := make(chan error)
	go func() { stopped <- s.Run(ctx) }()

	job, err := s.Submit(ctx, meanwhile.Submission{Queue: "count", Input: 3})
	if err != nil {
		log.Fatal(err)
	}
	var text strings.Builder
	for event, err := range s.Watch(ctx, job.ID, 0) {
		if err != nil {
			log.Fatal(err)
		}
		switch event.Type {
		case meanwhile.SnapshotEvent: // event.Job is the current state
		case meanwhile.AttemptEvent: // output of earlier attempts no longer counts
			text.Reset()
		case meanwhile.ProgressEvent: // event.Entry.Progress() has the percentage
		case meanwhile.OutputEvent:
			text.WriteString(event.Entry.Text())
		case meanwhile.DoneEvent:
			fmt.Printf("%s, output %q, result %s\n", event.Job.Status, text.String(), event.Job.Result)
		}
	}
	stop()
	<-stopped
	// Output:
	// succeeded, output "1 2 3 ", result 3
}

// The HTTP API next to the program's own pages.
func ExampleServer_Handler() {
	data, remove := exampleData()
	defer remove()
	ctx, stop := context.WithCancel(context.Background())
	s, err := meanwhile.Open(ctx, meanwhile.Config{
		Data: data,
		User: func(r *http.Request) string { // a real program reads its session
			user, _, _ := r.BasicAuth()
			return user
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	meanwhile.Handle(s, "greet", func(_ context.Context, t *meanwhile.Task, in Greeting) (string, error) {
		return fmt.Sprintf("%s greets %s", t.User, in.Name), nil
	})
	stopped := make(chan error)
	go func() { stopped <- s.Run(ctx) }()

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the program's own page") })
	mux.Handle("/v1/", s.Handler())
	web := httptest.NewServer(mux)
	defer web.Close()

	req, _ := http.NewRequest("POST", web.URL+"/v1/jobs", strings.NewReader(`{"queue": "greet", "input": {"name": "Bob"}}`))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "wait=60")
	req.SetBasicAuth("ann", "secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	var job meanwhile.Job
	if err := json.NewDecoder(res.Body).Decode(&job); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", job.Status, job.Result)

	stop()
	<-stopped
	// Output:
	// succeeded: "ann greets Bob"
}

// A function decides what happens after an error.
func ExampleRetryAfter() {
	busy := errors.New("the printer is busy")
	print := func(_ context.Context, t *meanwhile.Task, page string) (any, error) {
		switch {
		case page == "":
			return nil, meanwhile.Final(meanwhile.WithCode(errors.New("the page is empty"), "empty_page"))
		case t.Attempt == 1:
			return nil, busy // retried up to MaxAttempts
		case t.Attempt == 2:
			return nil, meanwhile.RetryAfter(busy, 30*time.Second) // does not count as a failed attempt
		}
		return "printed", nil
	}
	_, err := print(context.Background(), new(meanwhile.Task), "")
	fmt.Println(err)
	// Output:
	// the page is empty
}

// exampleData returns a directory for an example's data, and a function that removes it.
func exampleData() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "meanwhile-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}
