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
	"github.com/meanwhile-run/meanwhile/client"
)

// Picture is the input of a job.
type Picture struct {
	ID    int `json:"id"`
	Width int `json:"width,omitempty"`
}

// Validate refuses a submission that no attempt could work on.
func (p Picture) Validate() error {
	if p.ID < 1 {
		return errors.New("a picture has an id of 1 or more")
	}
	return nil
}

// Thumbnail is the result of a job.
type Thumbnail struct {
	URL string `json:"url"`
}

// makeThumbnail is the slow work.
func makeThumbnail(ctx context.Context, t *meanwhile.Task, p Picture) (Thumbnail, error) {
	for _, step := range []string{"Reading", "Scaling", "Writing"} {
		if ctx.Err() != nil {
			return Thumbnail{}, ctx.Err() // cancelled, too late, or the server stops
		}
		if err := t.Text(step + " "); err != nil {
			return Thumbnail{}, err
		}
	}
	return Thumbnail{URL: fmt.Sprintf("/thumbs/%d.webp", p.ID)}, t.Progress(100, "Done")
}

// A program submits slow work and reads the result.
func Example() {
	data, remove := exampleData() // such as "./data"
	defer remove()

	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	s, err := meanwhile.Open(ctx, meanwhile.Config{Data: data})
	if err != nil {
		log.Fatal(err)
	}
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.Concurrency(4))

	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()

	job, err := thumbs.Submit(ctx, Picture{ID: 7}, meanwhile.Key("ann"))
	if err != nil {
		log.Fatal(err)
	}
	thumb, err := thumbs.Wait(ctx, job.ID) // or, later and without waiting: thumbs.Result
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(thumb.URL)

	stop()                 // running work may finish
	fmt.Println(<-stopped) // nil: everything has stopped
	// Output:
	// /thumbs/7.webp
	// <nil>
}

// Follow a job. Watch connects again by itself and delivers each entry once.
func ExampleServer_Watch() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)
	defer run()()
	ctx := context.Background()

	job, err := thumbs.Submit(ctx, Picture{ID: 7})
	if err != nil {
		log.Fatal(err)
	}
	var text strings.Builder
	for event, err := range s.Watch(ctx, job.ID, 0) {
		if err != nil {
			log.Fatal(err) // a later Watch can continue after the last event.Cursor
		}
		switch event.Type {
		case meanwhile.SnapshotEvent: // event.Job is the job now; its text is not in it
		case meanwhile.AttemptEvent: // a new attempt: earlier output no longer counts
			text.Reset()
		case meanwhile.ProgressEvent:
			_ = event.Entry.Progress().Percent // 0 to 100, with a Status for people
		case meanwhile.OutputEvent:
			switch event.Entry.Kind {
			case client.KindText: // Task.Text
				text.WriteString(event.Entry.Text())
			case client.KindLog: // Task.Log
				fmt.Println("log:", event.Entry.Text())
			case client.KindJSON: // Task.Event
				fmt.Printf("event: %s\n", event.Entry.Data)
			}
		case meanwhile.DoneEvent: // the last event
			fmt.Printf("%s: %q, result %s\n", event.Job.Status, text.String(), event.Job.Result)
		}
	}
	// Output:
	// succeeded: "Reading Scaling Writing ", result {"url":"/thumbs/7.webp"}
}

// addImages adds a queue that runs two jobs at once, of whatever kind.
func addImages(s *meanwhile.Server) (thumbs *meanwhile.Jobs[Picture, Thumbnail], widths *meanwhile.Jobs[Picture, int]) {
	images := s.AddQueue("images", meanwhile.Concurrency(2))
	thumbs = meanwhile.HandleKind(images, "thumbnail", makeThumbnail)
	widths = meanwhile.HandleKind(images, "width", func(_ context.Context, _ *meanwhile.Task, p Picture) (int, error) {
		return 100 * p.ID, nil
	}, meanwhile.RunTimeout(time.Minute)) // for this kind only
	return thumbs, widths
}

// Several kinds of jobs share one queue and its concurrency.
func ExampleHandleKind() {
	s, run := openExample()
	thumbs, widths := addImages(s)
	defer run()()
	ctx := context.Background()

	fmt.Println(thumbs.SubmitAndWait(ctx, Picture{ID: 7}))
	fmt.Println(widths.SubmitAndWait(ctx, Picture{ID: 7}))

	// Other clients name the kind in the metadata.
	_, err := s.Submit(ctx, meanwhile.Submission{
		Queue: "images", Input: Picture{ID: 7}, Metadata: map[string]string{meanwhile.KindMetadata: "crop"},
	})
	fmt.Println(err)
	// Output:
	// {/thumbs/7.webp} <nil>
	// 700 <nil>
	// the queue "images" has no kind "crop"; the kinds are: thumbnail, width
}

// logged writes a line about each attempt.
func logged(next meanwhile.Work) meanwhile.Work {
	return func(ctx context.Context, t *meanwhile.Task) error {
		err := next(ctx, t)
		fmt.Printf("%s, attempt %d: %v\n", t.Queue, t.Attempt, err)
		return err
	}
}

// recovered makes a panic final. Without it, a panic is retried.
func recovered(next meanwhile.Work) meanwhile.Work {
	return func(ctx context.Context, t *meanwhile.Task) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = meanwhile.Final(fmt.Errorf("a defect: %v", p))
			}
		}()
		return next(ctx, t)
	}
}

// Middleware of the server is outside that of the queue.
func ExampleMiddleware() {
	s, run := openExample(func(c *meanwhile.Config) { c.Middleware = []meanwhile.Middleware{logged} })
	prints := meanwhile.Handle(s, "prints", func(context.Context, *meanwhile.Task, Picture) (any, error) {
		panic("out of paper")
	}, meanwhile.Use(recovered))
	defer run()()

	_, err := prints.SubmitAndWait(context.Background(), Picture{ID: 7})
	var failed *meanwhile.JobError
	fmt.Println(errors.As(err, &failed) && failed.Job.Status == meanwhile.Failed)
	// Output:
	// prints, attempt 1: a defect: out of paper
	// true
}

// A function decides what follows an error. The caller gets its code.
func ExampleFinal() {
	s, run := openExample()
	prints := meanwhile.Handle(s, "prints", func(_ context.Context, t *meanwhile.Task, p Picture) (string, error) {
		switch {
		case p.Width > 1000:
			return "", meanwhile.Final(meanwhile.WithCode(errors.New("the paper is too narrow"), "too_wide"))
		case t.Attempt < 3:
			return "", errors.New("a paper jam") // retried up to MaxAttempts
		}
		return "printed", nil
	}, meanwhile.Backoff(time.Millisecond, time.Second))
	defer run()()
	ctx := context.Background()

	fmt.Println(prints.SubmitAndWait(ctx, Picture{ID: 7}))

	_, err := prints.SubmitAndWait(ctx, Picture{ID: 7, Width: 2000})
	var failed *meanwhile.JobError
	if errors.As(err, &failed) {
		fmt.Println(failed.Code(), "in attempt", failed.Job.Attempt)
	}
	// Output:
	// printed <nil>
	// too_wide in attempt 1
}

// A busy device says when to come again. That costs no attempt.
func ExampleRetryAfter() {
	s, run := openExample()
	busy := true // used by one attempt at a time
	prints := meanwhile.Handle(s, "prints", func(_ context.Context, t *meanwhile.Task, _ Picture) (string, error) {
		if busy {
			busy = false
			return "", meanwhile.RetryAfter(errors.New("the printer is busy"), 10*time.Millisecond)
		}
		return fmt.Sprint("printed in attempt ", t.Attempt), nil
	}, meanwhile.Concurrency(1), meanwhile.Backoff(time.Millisecond, time.Second))
	defer run()()
	fmt.Println(prints.SubmitAndWait(context.Background(), Picture{ID: 7}))
	// Output:
	// printed in attempt 1 <nil>
}

// The cause says why an attempt has to stop.
func ExampleTask() {
	s, run := openExample()
	began := make(chan string)
	meanwhile.Handle(s, "scans", func(ctx context.Context, t *meanwhile.Task, p Picture) (any, error) {
		began <- t.JobID
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), meanwhile.ErrCancelled) {
			fmt.Println("the scanner is parked") // ErrTimeout, ErrStopping and ErrLost are the others
		}
		return nil, ctx.Err()
	})
	defer run()()
	ctx := context.Background()
	scans := meanwhile.JobsOf[Picture, any](s.Client, "scans", "")
	job, err := scans.Submit(ctx, Picture{ID: 7})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := s.Cancel(ctx, <-began); err != nil {
		log.Fatal(err)
	}
	_, err = scans.Wait(ctx, job.ID)
	var ended *meanwhile.JobError
	if errors.As(err, &ended) {
		fmt.Println(ended.Code())
	}
	// Output:
	// the scanner is parked
	// cancelled
}

// Besides text, a function writes events for programs, log lines for operators, and what the
// work has cost.
func ExampleTask_Event() {
	s, run := openExample()
	scans := meanwhile.Handle(s, "scans", func(_ context.Context, t *meanwhile.Task, pages int) (int, error) {
		for page := range pages {
			if err := t.Event(map[string]int{"page": page + 1}); err != nil {
				return 0, err
			}
		}
		if err := t.Log("scanned %d pages for %s", pages, t.User); err != nil {
			return 0, err
		}
		return pages, t.Usage(map[string]int{"sheets": pages})
	})
	defer run()()
	ctx := context.Background()
	job, err := s.SubmitAndWait(ctx, scans.Submission(2))
	if err != nil {
		log.Fatal(err)
	}
	out, err := s.Output(ctx, job.ID, 0, 0)
	if err != nil {
		log.Fatal(err)
	}
	for _, entry := range out.Entries {
		if entry.Kind != client.KindProgress && entry.Kind != client.KindAttempt {
			fmt.Printf("%s %s\n", entry.Kind, entry.Data)
		}
	}
	fmt.Printf("%s\n", job.Usage)
	// Output:
	// json {"page":1}
	// json {"page":2}
	// log "scanned 2 pages for local"
	// {"sheets":2}
}

// Submit a job for each input in one transaction.
func ExampleJobs_SubmitMany() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)
	defer run()()
	ctx := context.Background()

	jobs, err := thumbs.SubmitMany(ctx, []Picture{{ID: 1}, {ID: 2}, {ID: 3}}, meanwhile.Key("album-9"))
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range jobs {
		thumb, err := thumbs.Wait(ctx, job.ID)
		fmt.Println(thumb.URL, err)
	}
	_, err = thumbs.SubmitMany(ctx, []Picture{{ID: 1}, {ID: -1}}) // none is stored
	var refused *meanwhile.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Errors[0].Field, refused.Errors[0].Message)
	}
	// Output:
	// /thumbs/1.webp <nil>
	// /thumbs/2.webp <nil>
	// /thumbs/3.webp <nil>
	// /jobs/1/input the input is not valid: a picture has an id of 1 or more
}

// Submit a job with files. The function finds them in Task.Files.
func ExampleJobs_Submission() {
	s, run := openExample()
	words := meanwhile.Handle(s, "words", func(_ context.Context, t *meanwhile.Task, language string) (int, error) {
		text, err := os.ReadFile(t.Files[0].Path)
		return len(strings.Fields(string(text))), err
	})
	defer run()()
	ctx := context.Background()

	page := "Tides are made by the moon."
	job, err := s.SubmitFiles(ctx, words.Submission("en", meanwhile.Priority(1)),
		client.AttachBytes("page.txt", "text/plain", []byte(page)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(words.Wait(ctx, job.ID))
	// Output:
	// 6 <nil>
}

// A program that only submits has the same types, over the network.
func ExampleJobsOf() {
	s, run := openExample(func(c *meanwhile.Config) { c.Listen = "127.0.0.1:0" })
	meanwhile.Handle(s, "thumbnails", makeThumbnail)
	defer run()()

	c, err := client.New(s.URL()) // in another process
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	thumbs := meanwhile.JobsOf[Picture, Thumbnail](c, "thumbnails", "")
	fmt.Println(thumbs.SubmitAndWait(context.Background(), Picture{ID: 7}))
	// Output:
	// {/thumbs/7.webp} <nil>
}

// Submit for a user of the program. A user sees no jobs of another.
func ExampleJobs_With() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)
	defer run()()
	ctx := context.Background()

	ann, bob := thumbs.With(s.AsUser("ann")), thumbs.With(s.AsUser("bob"))
	job, err := ann.Submit(ctx, Picture{ID: 7})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ann.Wait(ctx, job.ID))
	_, err = bob.Result(ctx, job.ID)
	fmt.Println(client.CodeOf(err))
	// Output:
	// {/thumbs/7.webp} <nil>
	// not_found
}

// The HTTP API next to the program's own pages.
func ExampleServer_Handler() {
	s, run := openExample(func(c *meanwhile.Config) {
		c.User = func(r *http.Request) string { // a real program reads its session
			user, _, _ := r.BasicAuth()
			return user
		}
	})
	meanwhile.Handle(s, "greetings", func(_ context.Context, t *meanwhile.Task, name string) (string, error) {
		return fmt.Sprintf("%s greets %s", t.User, name), nil
	})
	defer run()()

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the program's own page") })
	mux.Handle("/v1/", s.Handler())
	web := httptest.NewServer(mux)
	defer web.Close()

	req, _ := http.NewRequest("POST", web.URL+"/v1/jobs", strings.NewReader(`{"queue": "greetings", "input": "Bob"}`))
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
	// Output:
	// succeeded: "ann greets Bob"
}

// openExample opens a server for an example. run runs it and returns what stops it.
func openExample(set ...func(*meanwhile.Config)) (s *meanwhile.Server, run func() (stop func())) {
	data, remove := exampleData()
	c := meanwhile.Config{Data: data}
	for _, f := range set {
		f(&c)
	}
	s, err := meanwhile.Open(context.Background(), c)
	if err != nil {
		log.Fatal(err)
	}
	return s, func() func() {
		ctx, stop := context.WithCancel(context.Background())
		stopped := make(chan error, 1)
		go func() { stopped <- s.Run(ctx) }()
		return func() {
			stop()
			if err := <-stopped; err != nil {
				log.Fatal(err)
			}
			remove()
		}
	}
}

// exampleData returns a directory for an example's data, and a function that removes it.
func exampleData() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "meanwhile-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}
