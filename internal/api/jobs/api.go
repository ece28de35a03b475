// Package jobs is the native HTTP API: jobs and queues under /v1. It parses requests, calls
// the engine and writes responses. Its only rules are those about the format of requests.
//
// A job's JSON is appended field by field to a pooled buffer, without encoding/json, because
// a server answers tens of thousands of submits per second.
package jobs

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Engine is the part of [engine.Engine] that the API calls. The methods are documented there.
// [FromEngine] adapts a real engine.
type Engine interface {
	Writer
	Reader
}

// Writer changes jobs.
type Writer interface {
	Submit(ctx context.Context, r engine.Request) (snap engine.Snapshot, existing bool, err error)
	SubmitAndWait(ctx context.Context, r engine.Request, wait time.Duration) (snap engine.Snapshot, existing bool, err error)
	Cancel(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	Retry(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	Delete(ctx context.Context, owner job.Owner, id job.ID) error
	SubmitMany(ctx context.Context, list []engine.Request, atomic bool) ([]engine.SubmitResult, error)
	ChangeMany(ctx context.Context, v engine.Verb, f job.Filter) (done int, err error)
	SetPaused(ctx context.Context, queue string, paused bool) (engine.QueueView, error)
	CheckCapacity(queue string, size int64) error
	HasIdempotencyKey(ctx context.Context, owner job.Owner, key string) bool
}

// Reader reads jobs and queues.
type Reader interface {
	Get(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	Wait(ctx context.Context, owner job.Owner, id job.ID, wait time.Duration) (engine.Snapshot, error)
	List(ctx context.Context, f job.Filter) (page []job.Job, next job.ID, err error)
	Output(ctx context.Context, owner job.Owner, id job.ID, after int64, wait time.Duration) (engine.Update, error)
	Result(ctx context.Context, owner job.Owner, id job.ID, from int64, limit int) (job.ResultPart, error)
	Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (stream.Watcher, error)
	Queue(name string) (engine.Queue, error)
	Queues(ctx context.Context) ([]engine.QueueView, error)
}

// FromEngine adapts a real engine.
func FromEngine(e *engine.Engine) Engine { return engineAdapter{e} }

type engineAdapter struct{ *engine.Engine }

// Watch returns the engine's watch as the interface that the API needs.

func (e engineAdapter) Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (stream.Watcher, error) {
	w, err := e.Engine.Watch(ctx, owner, id, after)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Config configures an [API].
type Config struct {
	Engine Engine
	Files  files.Store  // the files of jobs; nil: submits with files are refused
	Gate   *gate.Gate   // for watch URLs and timeouts; nil: no watch URLs, default timeouts
	Log    *slog.Logger // nil: silent
	// MaxInput is the largest input that any queue takes, in bytes; 0 for [job.MaxInput]. The
	// engine refuses one that is too large for its queue.
	MaxInput int64
	// Stopping ends when the server begins to stop. Waiting requests are then answered with
	// the current state, and streams end so that their clients reconnect. Nil: never.
	Stopping context.Context
}

// API serves the routes. Its only goroutines are those of its sockets and streams; Wait
// waits for them.
type API struct {
	engine   Engine
	files    files.Store
	uploads  uploads // in progress
	gate     *gate.Gate
	timeouts api.Timeouts // of clients
	maxBody  int64        // bytes of a submit
	maxBatch int64        // bytes of a batch
	log      *slog.Logger
	stopping context.Context
	buffers  api.BufferPool // for responses
	sockets  stream.Sockets
	sse      *stream.SSE
}

// New returns an API.
func New(c Config) *API {
	f := &API{engine: c.Engine, files: c.Files, gate: c.Gate, log: c.Log, stopping: c.Stopping}
	f.maxBody = max(c.MaxInput, job.MaxInput) + job.MaxEnvelope
	f.maxBatch = max(job.MaxBatchBody, f.maxBody)
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.stopping == nil {
		f.stopping = context.Background()
	}
	if c.Gate != nil {
		f.timeouts = c.Gate.Timeouts
	}
	f.sockets = stream.Sockets{Stopping: f.stopping.Done(), Deadlines: stream.DefaultDeadlines, Log: f.log, Caller: gate.BudgetOf}
	if c.Gate != nil {
		f.sockets.Bodies = c.Gate.Bodies
	}
	f.sse = stream.NewSSE(f.stopping, f.log, &f.buffers)
	return f
}

// Register adds the API's routes to a mux, with what a caller needs for them.
func (a *API) Register(mux gate.Routes) {
	submit, read, cancel, operate := gate.Scope(access.Submit), gate.Scope(access.Read), gate.Scope(access.Cancel), gate.Scope(access.Operate)
	meta, admin := gate.Scope(access.ReadMeta), gate.Scope(access.Admin) // without payloads
	for _, route := range []struct {
		pattern string
		need    gate.Need
		handle  api.Handler
	}{
		{"POST /v1/jobs", submit.UserToken(), a.submit},
		{"GET /v1/jobs", meta.UserToken(), a.list},
		{"POST /v1/jobs/batch", submit, a.submitBatch},
		{"GET /v1/jobs/{id}", meta.WatchToken(0, "id"), rejectCallNames(a.get)},
		{"DELETE /v1/jobs/{id}", operate, rejectCallNames(a.delete)},
		{"GET /v1/jobs/{id}/output", read.WatchToken(0, "id"), a.output},
		{"GET /v1/jobs/{id}/events", read.WatchToken(0, "id"), a.events},
		{"GET /v1/jobs/{id}/result", read.WatchToken(0, "id"), a.result},
		{"GET /v1/jobs/{id}/files/{name}", read, a.file},
		{"POST /v1/jobs/{id}/cancel", cancel.WatchToken(gate.MayCancel, "id"), a.cancel},
		{"POST /v1/jobs/{id}/retry", operate, a.retry},
		{"POST /v1/jobs/cancel", cancel, a.changeMany(engine.CancelAll)},
		{"POST /v1/jobs/retry", operate, a.changeMany(engine.RetryAll)},
		{"POST /v1/jobs/delete", operate, a.changeMany(engine.DeleteAll)},
		// Its messages name jobs, and are checked one by one.
		{"GET /v1/watch", gate.AnyScope(access.Read|access.Cancel).WatchToken(0, ""), a.watchSocket},
		{"POST /v1/tokens", gate.Scope(gate.UserScopes).UserToken(), a.createToken},
		{"GET /v1/queues", meta, a.queues},
		{"GET /v1/queues/{queue}", meta, a.queue},
		{"POST /v1/queues/{queue}/pause", admin, a.setPaused(true)},
		{"POST /v1/queues/{queue}/resume", admin, a.setPaused(false)},
	} {
		mux.Handle(route.pattern, route.need, a.wrap(route.handle))
	}
}

func (a *API) wrap(h api.Handler) http.Handler { return api.Wrap(a.log, api.WriteProblem, h) }

// rejectCallNames wraps a call about one job. The paths of the calls for many jobs, such as
// POST /v1/jobs/cancel, have a word where this call has an id. With a wrong method they end
// up here, and get a 405 instead of a 404.
func rejectCallNames(call api.Handler) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := call(w, r)
		if job.CodeOf(err) != job.NotFound {
			return err
		}
		switch r.PathValue("id") {
		case "batch", "cancel", "retry", "delete":
			return api.NotAllowed(w, r, http.MethodPost)
		}
		return err
	}
}

// Wait refuses new sockets, and returns when all sockets and all detached streams have ended.
// Call it after Stopping has ended.
func (a *API) Wait() {
	a.sockets.Wait()
	a.sse.Wait()
}

// parseJob returns whose jobs the caller of a request reads, and the id of the job in its path.
func parseJob(r *http.Request) (job.Owner, job.ID, error) {
	id, err := job.ParseID(r.PathValue("id"))
	return gate.CallerFrom(r).View(), id, err
}

// contextUntilStop returns the request's context, which also ends when the server stops and when
// the key of the caller does.
func (a *API) contextUntilStop(r *http.Request) (ctx context.Context, cancel func()) {
	ctx, stop := gate.CallerFrom(r).Context(r.Context())
	stopListening := context.AfterFunc(a.stopping, stop)
	return ctx, func() { stopListening(); stop() }
}

// longPoll calls ask, which may wait. When the server begins to stop, longPoll calls it
// again without a wait, so that the client still gets the current state.
func longPoll[T any](f *API, r *http.Request, wait time.Duration, ask func(context.Context, time.Duration) (T, error)) (T, error) {
	if wait == 0 {
		return ask(r.Context(), 0)
	}
	ctx, cancel := f.contextUntilStop(r)
	defer cancel()
	answer, err := ask(ctx, wait)
	if ended := gate.CallerFrom(r).Check(); ended != nil {
		return answer, ended
	}
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		return ask(r.Context(), 0)
	}
	return answer, err
}
