// Thumbnails is the program of docs/embedding.md: it runs slow work in the background.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
)

// Picture is the input of a job.
type Picture struct {
	ID int `json:"id"`
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
	for i, step := range []string{"Reading", "Scaling", "Writing"} {
		if ctx.Err() != nil {
			return Thumbnail{}, ctx.Err() // cancelled, too late, or the server stops
		}
		err := errors.Join(t.Progress(float64(30*i), step), t.Text(step+" "))
		if err != nil {
			return Thumbnail{}, err
		}
	}
	return Thumbnail{URL: fmt.Sprintf("/thumbs/%d.webp", p.ID)}, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, "./data"); err != nil {
		log.Fatal(err)
	}
}

// run runs the server, with its data in a directory, until the program's own work is done.
func run(ctx context.Context, data string) error {
	s, err := meanwhile.Open(ctx, meanwhile.Config{Data: data})
	if err != nil {
		return err
	}
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.Concurrency(4))

	ctx, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()

	err = work(ctx, s, thumbs)
	stop() // running work may finish
	return errors.Join(err, <-stopped)
}

// work is what the program does, such as in a handler of its pages.
func work(ctx context.Context, s *meanwhile.Server, thumbs *meanwhile.Jobs[Picture, Thumbnail]) error {
	job, err := thumbs.Submit(ctx, Picture{ID: 7}, meanwhile.Key("ann"))
	if err != nil {
		return err
	}
	// The job is on disk. Its id is all that is needed, now or tomorrow.
	if err := follow(ctx, s, job.ID); err != nil {
		return err
	}
	thumb, err := thumbs.Result(ctx, job.ID)
	if err != nil {
		return err
	}
	fmt.Println(thumb.URL)
	return nil
}

// follow prints what a job does until it has ended. Each event comes once, also over a network
// whose connections break.
func follow(ctx context.Context, s *meanwhile.Server, id string) error {
	var text strings.Builder
	for event, err := range s.Watch(ctx, id, 0) { // 0: from the first entry
		if err != nil {
			return err // a later Watch can continue after the last event.Cursor
		}
		switch event.Type {
		case meanwhile.SnapshotEvent: // event.Job is the job as it is now
		case meanwhile.AttemptEvent: // a new attempt: earlier output no longer counts
			text.Reset()
		case meanwhile.ProgressEvent:
			_ = event.Entry.Progress().Percent // 0 to 100, with a Status for people
		case meanwhile.OutputEvent:
			switch event.Entry.Kind {
			case client.KindText: // of Task.Text
				text.WriteString(event.Entry.Text())
			case client.KindLog: // of Task.Log
				fmt.Println("log:", event.Entry.Text())
			case client.KindJSON: // of Task.Event
				fmt.Printf("event: %s\n", event.Entry.Data)
			}
		case meanwhile.DoneEvent: // the last event
			fmt.Printf("%s: %q\n", event.Job.Status, text.String())
		}
	}
	return nil
}
