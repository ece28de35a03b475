package server

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/api/jobs"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/inbox"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/telemetry"
)

// makeInbox makes what takes the jobs that programs insert into the database.
func (c *components) makeInbox() {
	if c.store.pool == nil {
		return
	}
	c.inbox = inbox.New(inbox.Config{
		DB:      c.store.pool,
		Queues:  slices.Sorted(maps.Keys(c.cfg.Queues)),
		Request: c.inboxRequest,
		Submit: func(ctx context.Context, list []engine.Request) ([]engine.SubmitResult, error) {
			return c.engine.SubmitMany(ctx, list, false)
		},
		MaxBody:     c.maxInboxBody,
		Log:         c.log,
		AfterSubmit: c.afterInboxSubmit,
	})
}

func (c *components) inboxRequest(r inbox.Row) (engine.Request, error) {
	return c.jobs.InboxRequest(jobs.InboxRow{Owner: r.Owner, Queue: r.Queue, Body: r.Body, Idempotency: r.Idempotency})
}

// maxInboxBody is the largest body of a row of a queue, in bytes.
func (c *components) maxInboxBody(queue string) int64 {
	q, err := c.engine.Queue(queue)
	if err != nil || q.MaxInput == 0 {
		return job.MaxInput + job.MaxEnvelope
	}
	return int64(q.MaxInput) + job.MaxEnvelope
}

func (c *components) inboxStats(ctx context.Context) (telemetry.InboxStats, error) {
	n, err := c.inbox.Stats(ctx)
	return telemetry.InboxStats(n), err
}

// runInbox takes jobs from the inbox until ctx ends.
func (c *components) runInbox(ctx context.Context) error {
	if c.inbox == nil {
		return nil
	}
	return c.inbox.Run(ctx)
}

// Insertion is a job that a program submits in a transaction of its own.
type Insertion struct {
	User        string // "" means the user "local"
	Queue       string
	Body        []byte // the JSON of POST /v1/jobs without the queue
	Idempotency string // "" for none
}

// unsupported is the code of a call that the server's store cannot do. No answer over HTTP has it.
const unsupported job.Code = "unsupported"

// SubmitTx inserts a job into the inbox of the database with exec, which executes a statement in
// the caller's transaction. It returns the id that the job has once that transaction is committed.
// Like a request it waits until the server runs.
func (s *Server) SubmitTx(ctx context.Context, exec inbox.Exec, i Insertion) (id string, err error) {
	c := s.components
	if c.store.pool == nil {
		return "", job.Errorf(unsupported, "SubmitTx needs jobs and the caller's tables in one PostgreSQL database: set Config.Database, or use Submit")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/v1/jobs", http.NoBody) // what the log calls the call
	if err != nil {
		return "", err
	}
	if _, err := c.embedded.acquire(r); err != nil {
		return "", err
	}
	defer c.embedded.release()
	row := inbox.Row{ID: job.NewID().String(), Owner: job.Owner{User: i.User}, Queue: i.Queue, Body: i.Body}
	if row.Owner.User == "" {
		row.Owner.User = "local"
	}
	if i.Idempotency != "" {
		row.Idempotency = &i.Idempotency
	}
	request, err := c.inboxRequest(row)
	if err == nil {
		err = c.engine.CheckRequest(request)
	}
	if err == nil {
		err = c.inbox.Insert(ctx, exec, row)
	}
	if err != nil {
		return "", err
	}
	return row.ID, nil
}
