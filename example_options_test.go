package meanwhile_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
)

// Two pictures at a time, however many processors the machine has.
func ExampleConcurrency() {
	s, run := openExample()
	meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.Concurrency(2))
	defer run()()
	q, err := s.Queue(context.Background(), "thumbnails")
	fmt.Println(q.Concurrency, err)
	// Output:
	// 2 <nil>
}

// At most one job waits. The queue is paused, so that none runs.
func ExampleMaxDepth() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.MaxDepth(1))
	defer run()()
	ctx := context.Background()
	if _, err := s.Pause(ctx, "thumbnails"); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		_, err := thumbs.Submit(ctx, Picture{ID: 7})
		fmt.Println(client.CodeOf(err) == client.CodeQueueFull)
	}
	// Output:
	// false
	// true
}

// A customer has one job running and at most 50 waiting; the others' jobs run meanwhile.
func ExamplePerKey() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.PerKey(1, 50))
	defer run()()
	fmt.Println(thumbs.SubmitAndWait(context.Background(), Picture{ID: 7}, meanwhile.Key("customer-9")))
	// Output:
	// {/thumbs/7.webp} <nil>
}

// Each attempt of the queue is a transaction: it is committed if the function succeeds.
func ExampleUse() {
	inTransaction := func(next meanwhile.Work) meanwhile.Work {
		return func(ctx context.Context, t *meanwhile.Task) error {
			fmt.Println("begin") // tx, err := db.BeginTx(ctx, nil)
			if err := next(ctx, t); err != nil {
				fmt.Println("roll back")
				return err
			}
			fmt.Println("commit")
			return nil // an error of the commit fails the attempt
		}
	}
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.Use(inTransaction))
	defer run()()
	fmt.Println(thumbs.SubmitAndWait(context.Background(), Picture{ID: 7}))
	// Output:
	// begin
	// commit
	// {/thumbs/7.webp} <nil>
}

// failing fails every attempt.
func failing(context.Context, *meanwhile.Task, Picture) (Thumbnail, error) {
	return Thumbnail{}, errors.New("the disk is full")
}

// The queue allows two failures, one of its jobs only one.
func ExampleMaxAttempts() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", failing, meanwhile.MaxAttempts(2), meanwhile.Backoff(0, 0))
	defer run()()
	for _, options := range [][]meanwhile.SubmitOption{nil, {meanwhile.MaxAttempts(1)}} {
		_, err := thumbs.SubmitAndWait(context.Background(), Picture{ID: 7}, options...)
		var failed *meanwhile.JobError
		if errors.As(err, &failed) {
			fmt.Println(failed.Job.Attempt)
		}
	}
	// Output:
	// 2
	// 1
}

// The second attempt comes after 10 ms, the third after 20 ms, later ones after at most 1 s.
func ExampleBackoff() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", failing, meanwhile.Backoff(10*time.Millisecond, time.Second))
	defer run()()
	_, err := thumbs.SubmitAndWait(context.Background(), Picture{ID: 7})
	var failed *meanwhile.JobError
	if errors.As(err, &failed) {
		fmt.Println(failed.Job.Attempt, failed.Job.Error.Message)
	}
	// Output:
	// 4 the disk is full
}

// A service may ask for at most a minute of patience.
func ExampleRetryFor() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", func(context.Context, *meanwhile.Task, Picture) (any, error) {
		return nil, meanwhile.RetryAfter(errors.New("come back in an hour"), time.Hour)
	}, meanwhile.RetryFor(time.Minute))
	defer run()()
	_, err := thumbs.SubmitAndWait(context.Background(), Picture{ID: 7})
	var failed *meanwhile.JobError
	if errors.As(err, &failed) {
		fmt.Println(failed.Job.Error.Message)
	}
	// Output:
	// come back in an hour; another wait would be longer than retry.for_s allows (1m0s)
}

// waiting works until its context ends.
func waiting(ctx context.Context, _ *meanwhile.Task, _ Picture) (Thumbnail, error) {
	<-ctx.Done()
	return Thumbnail{}, ctx.Err()
}

// An attempt may take a minute; that of one urgent job may not.
func ExampleRunTimeout() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", waiting, meanwhile.RunTimeout(time.Minute))
	defer run()()
	_, err := thumbs.SubmitAndWait(context.Background(), Picture{ID: 7}, meanwhile.RunTimeout(20*time.Millisecond))
	var failed *meanwhile.JobError
	if errors.As(err, &failed) {
		fmt.Println(failed.Code())
	}
	// Output:
	// timeout
}

// A preview is of no use after an hour. That of this job is not after 20 ms.
func ExampleQueueTimeout() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.QueueTimeout(time.Hour))
	defer run()()
	ctx := context.Background()
	if _, err := s.Pause(ctx, "thumbnails"); err != nil {
		log.Fatal(err)
	}
	_, err := thumbs.SubmitAndWait(ctx, Picture{ID: 7}, meanwhile.QueueTimeout(20*time.Millisecond))
	var expired *meanwhile.JobError
	if errors.As(err, &expired) {
		fmt.Println(expired.Job.Status)
	}
	// Output:
	// expired
}

// submitExample submits a job to a paused queue and returns it as it waits.
func submitExample(options ...meanwhile.SubmitOption) *meanwhile.Job {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)
	defer run()()
	ctx := context.Background()
	if _, err := s.Pause(ctx, "thumbnails"); err != nil {
		log.Fatal(err)
	}
	job, err := thumbs.Submit(ctx, Picture{ID: 7}, options...)
	if err != nil {
		log.Fatal(err)
	}
	return job
}

// The jobs of a customer take turns with those of others.
func ExampleKey() {
	job := submitExample(meanwhile.Key("customer-9"))
	fmt.Println(job.Key)
	// Output:
	// customer-9
}

// A person waits for this picture.
func ExamplePriority() {
	job := submitExample(meanwhile.Priority(1))
	fmt.Println(job.Priority)
	// Output:
	// 1
}

// Make the picture in an hour.
func ExampleDelay() {
	job := submitExample(meanwhile.Delay(time.Hour))
	fmt.Println(job.Status, job.RunAt.Sub(job.CreatedAt))
	// Output:
	// scheduled 1h0m0s
}

// Make the picture at a time, such as tonight at eleven.
func ExampleRunAt() {
	tonight := time.Now().Add(8 * time.Hour)
	job := submitExample(meanwhile.RunAt(tonight))
	fmt.Println(job.Status)
	// Output:
	// scheduled
}

// Find the jobs of an album later: client.Filter selects by metadata.
func ExampleMetadata() {
	job := submitExample(meanwhile.Metadata("album", "summer"), meanwhile.Metadata("page", "3"))
	fmt.Println(job.Metadata)
	// Output:
	// map[album:summer page:3]
}

// Cancel the job when its page was closed: when nobody has looked for five minutes.
func ExampleAbandonAfter() {
	job := submitExample(meanwhile.AbandonAfter(5 * time.Minute))
	fmt.Println(job.AbandonAfterS, "seconds")
	// Output:
	// 300 seconds
}

// A form that is sent twice makes one job.
func ExampleIdempotencyKey() {
	s, run := openExample()
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)
	defer run()()
	ctx := context.Background()
	first, err := thumbs.Submit(ctx, Picture{ID: 7}, meanwhile.IdempotencyKey("form-4711"))
	if err != nil {
		log.Fatal(err)
	}
	second, err := thumbs.Submit(ctx, Picture{ID: 7}, meanwhile.IdempotencyKey("form-4711"))
	fmt.Println(second.ID == first.ID, err)
	// Output:
	// true <nil>
}

// An order and its job exist both or neither. The program's tables and the jobs are in one
// PostgreSQL database.
func ExampleServer_SubmitTx() {
	order := func(ctx context.Context, s *meanwhile.Server, db *sql.DB) (id string, err error) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return "", err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after a commit
		if _, err := tx.ExecContext(ctx, "insert into orders (item) values ('chair')"); err != nil {
			return "", err
		}
		id, err = s.SubmitTx(ctx, meanwhile.SQLTx(tx), meanwhile.Submission{Queue: "mail", Input: "chair"})
		if err != nil {
			return "", err
		}
		return id, tx.Commit()
	}
	_ = order
}

// PgxTx takes a transaction of pgx, which is any value with its method Exec.
func ExampleServer_SubmitTxAs() {
	type commandTag struct{} // pgconn.CommandTag
	type pgxTx interface {   // pgx.Tx
		Exec(ctx context.Context, sql string, arguments ...any) (commandTag, error)
	}
	order := func(ctx context.Context, s *meanwhile.Server, tx pgxTx) (id string, err error) {
		return s.SubmitTxAs(ctx, meanwhile.PgxTx(tx), "ann", meanwhile.Submission{Queue: "mail", Input: "chair"})
	}
	_ = order
}
