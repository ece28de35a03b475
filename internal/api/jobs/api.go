// Package jobs is the native HTTP face: jobs and queues under /v1. It parses,
// calls the engine and writes; it has no rules of its own beyond what a request
// may say.
//
// A job is written by hand, append by append, into a pooled buffer: submits are
// answered by the ten thousand, and the shape of a job is read in one place.
package jobs

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Engine is what the face calls; see [engine.Engine] for what each method
// promises. [Of] makes one of a real engine.
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
	Result(ctx context.Context, owner job.Owner, id job.ID) (job.Result, error)
	Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (stream.Watcher, error)
	Queue(name string) (engine.Queue, error)
	Queues(ctx context.Context) ([]engine.QueueView, error)
}

// Of is a real engine as the face calls it.
func FromEngine(e *engine.Engine) Engine { return direct{e} }

type direct struct{ *engine.Engine }

func (d direct) Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (stream.Watcher, error) {
	w, err := d.Engine.Watch(ctx, owner, id, after)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Config is what a face needs.
type Config struct {
	Engine Engine
	Files  *files.Dir   // where the files of jobs lie; nil: there are none
	Gate   *gate.Gate   // of its watch URLs and of clients' timeouts; nil: none
	Log    *slog.Logger // nil: silent
	// Stopping is over when the server stops: held requests are then answered with
	// what there is, and streams end so that their watchers reconnect. Nil: never.
	Stopping context.Context
}

// Face answers the calls. It starts no goroutine but those of its sockets and
// streams, which Wait waits for.
type API struct {
	engine   Engine
	files    *files.Dir
	uploads  atomic.Int64 // under way
	gate     *gate.Gate
	timeouts api.Timeouts // of clients
	log      *slog.Logger
	stopping context.Context
	buffers  api.BufferPool // of answers
	sockets  stream.Sockets
	sse      *stream.SSE
	intake   intake // of batches
}

// New makes the face.
func New(c Config) *API {
	f := &API{engine: c.Engine, files: c.Files, gate: c.Gate, log: c.Log, stopping: c.Stopping}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.stopping == nil {
		f.stopping = context.Background()
	}
	if c.Gate != nil {
		f.timeouts = c.Gate.Timeouts
	}
	f.sockets = stream.Sockets{Stopping: f.stopping.Done(), Deadlines: stream.DefaultDeadlines, Log: f.log}
	f.sse = stream.NewSSE(f.stopping, f.log, &f.buffers)
	return f
}

// Register adds the API's routes to a mux, and says what a watch token opens.
func (f *API) Register(mux api.Mux) {
	for _, route := range []struct {
		pattern string
		handle  api.Handler
	}{
		{"POST /v1/jobs", f.submit},
		{"POST /v1/jobs/batch", f.submitBatch},
		{"GET /v1/jobs", f.list},
		{"DELETE /v1/jobs/{id}", aboutOne(f.delete)},
		{"GET /v1/jobs/{id}/files/{name}", f.file},
		{"POST /v1/jobs/{id}/retry", f.retry},
		{"POST /v1/jobs/cancel", f.changeMany(engine.CancelAll)},
		{"POST /v1/jobs/retry", f.changeMany(engine.RetryAll)},
		{"POST /v1/jobs/delete", f.changeMany(engine.DeleteAll)},
		{"GET /v1/queues", f.queues},
		{"GET /v1/queues/{queue}", f.queue},
		{"POST /v1/queues/{queue}/pause", f.setPaused(true)},
		{"POST /v1/queues/{queue}/resume", f.setPaused(false)},
	} {
		mux.Handle(route.pattern, f.wrap(route.handle))
	}
	for _, route := range []struct {
		pattern string
		right   gate.Rights
		inPath  string
		handle  api.Handler
	}{
		{"GET /v1/jobs/{id}", 0, "id", aboutOne(f.get)},
		{"GET /v1/jobs/{id}/output", 0, "id", f.output},
		{"GET /v1/jobs/{id}/events", 0, "id", f.events},
		{"GET /v1/jobs/{id}/result", 0, "id", f.result},
		{"POST /v1/jobs/{id}/cancel", gate.MayCancel, "id", f.cancel},
		{"GET /v1/watch", 0, "", f.watchSocket}, // whose messages name their jobs
	} {
		mux.Handle(route.pattern, gate.AllowToken(route.right, route.inPath, f.wrap(route.handle)))
	}
}

func (f *API) wrap(h api.Handler) http.Handler { return api.Wrap(f.log, api.WriteProblem, h) }

// aboutOne is a call about one job. The names of the calls for many stand where its id
// would, and have other methods.
func aboutOne(call api.Handler) api.Handler {
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

// Wait takes no new socket and no stream that outlasts its handler, and returns when
// every one is over.
// Call it after Stopping is over.
func (f *API) Wait() {
	f.sockets.Wait()
	f.sse.Wait()
}

// subject is the job that a request names, and who asks.
func subject(r *http.Request) (job.Owner, job.ID, error) {
	id, err := job.ParseID(r.PathValue("id"))
	return gate.Owner(r), id, err
}

// untilStop is a request's context that also ends when the server stops.
func (f *API) untilStop(r *http.Request) (ctx context.Context, cancel func()) {
	ctx, stop := context.WithCancel(r.Context())
	unhook := context.AfterFunc(f.stopping, stop)
	return ctx, func() { unhook(); stop() }
}

// held asks a question that may be held for a while. A stop of the server ends the
// holding, not the question.
func held[T any](f *API, r *http.Request, wait time.Duration, ask func(context.Context, time.Duration) (T, error)) (T, error) {
	if wait == 0 {
		return ask(r.Context(), 0)
	}
	ctx, cancel := f.untilStop(r)
	defer cancel()
	answer, err := ask(ctx, wait)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		return ask(r.Context(), 0)
	}
	return answer, err
}
