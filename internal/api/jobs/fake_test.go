package jobs

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A short run draws few cases.
	if f := flag.Lookup("rapid.checks"); testing.Short() && f.Value.String() == f.DefValue {
		_ = f.Value.Set("10")
	}
	goleak.VerifyTestMain(m)
}

// fake is an engine that returns what the test sets and records how it was called. Where
// a field is nil it returns its one job.
type fake struct {
	t openapitest.T

	mu    sync.Mutex
	calls []string

	snap    engine.Snapshot
	request engine.Request   // of the last submit
	filter  job.Filter       // of the last list or change of many
	batch   []engine.Request // of the last batch
	atomic  bool
	verb    engine.Verb   // of the last change of many
	paused  *bool         // the last value for a queue
	size    int64         // of the last CheckCapacity
	after   int64         // of the last output or watch
	wait    time.Duration // of the last call that waits

	err         error
	existing    bool
	page        []job.Job
	next        job.ID
	entries     []job.Entry
	res         job.Result
	resErr      error
	gate        *gate.Gate                  // of the API; nil: none
	resLimit    int                         // the longest part of a result that was asked for
	done        int                         // the count that a change of many returns
	answers     []engine.SubmitResult       // the results of a batch; nil: its one job for each
	waits       func(context.Context) error // called in place of a wait
	watch       func(after int64) stream.Watcher
	capacityErr error
	existingKey string // an idempotency key that exists
}

var (
	moment = time.Date(2030, 1, 31, 9, 0, 0, 123e6, time.UTC)
	owner  = job.Owner{User: "local"}
	anID   = mustID("job_000000000xr03001081g81860w")
)

func mustID(text string) job.ID {
	id, err := job.ParseID(text)
	if err != nil {
		panic(err)
	}
	return id
}

func testJob() job.Job {
	return job.Job{
		ID: anID, Owner: owner, Queue: "sim", Priority: 5, State: job.Queued, MaxAttempts: 4,
		CreatedAt: moment, RunAt: moment,
	}
}

func newFake(t openapitest.T) *fake { return &fake{t: t, snap: engine.Snapshot{Job: testJob()}} }

func (f *fake) called(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) waiting(ctx context.Context, wait time.Duration) error {
	f.mu.Lock()
	f.wait = wait
	f.mu.Unlock()
	if f.waits != nil && wait > 0 {
		return f.waits(ctx)
	}
	return f.err
}

func (f *fake) Submit(_ context.Context, r engine.Request) (engine.Snapshot, bool, error) {
	f.called("submit")
	f.request = r
	return f.snap, f.existing, f.err
}

func (f *fake) SubmitAndWait(ctx context.Context, r engine.Request, wait time.Duration) (engine.Snapshot, bool, error) {
	f.called("submit and wait")
	f.request = r
	return f.snap, f.existing, f.waiting(ctx, wait)
}

func (f *fake) Cancel(context.Context, job.Owner, job.ID) (engine.Snapshot, error) {
	f.called("cancel")
	return f.snap, f.err
}

func (f *fake) Retry(context.Context, job.Owner, job.ID) (engine.Snapshot, error) {
	f.called("retry")
	return f.snap, f.err
}

func (f *fake) Delete(context.Context, job.Owner, job.ID) error {
	f.called("delete")
	return f.err
}

func (f *fake) SubmitMany(_ context.Context, list []engine.Request, atomic bool) ([]engine.SubmitResult, error) {
	f.called("submit many")
	f.batch, f.atomic = list, atomic
	if f.err != nil {
		return nil, f.err
	}
	if f.answers != nil {
		return f.answers, nil
	}
	answers := make([]engine.SubmitResult, len(list))
	for i := range answers {
		answers[i].Snapshot = f.snap
	}
	return answers, nil
}

func (f *fake) ChangeMany(ctx context.Context, v engine.Verb, filter job.Filter) (int, error) {
	f.called("many")
	f.verb, f.filter = v, filter
	if f.waits != nil {
		return f.done, f.waits(ctx)
	}
	return f.done, f.err
}

func (f *fake) SetPaused(_ context.Context, queue string, paused bool) (engine.QueueView, error) {
	f.called("set paused %s %v", queue, paused)
	f.paused = &paused
	view := testQueueView()
	view.Counts.Paused = paused
	return view, f.err
}

func (f *fake) CheckCapacity(_ string, size int64) error {
	f.size = size
	return f.capacityErr
}

func (f *fake) HasIdempotencyKey(_ context.Context, _ job.Owner, key string) bool {
	return key == f.existingKey
}

func (f *fake) Get(_ context.Context, _ job.Owner, id job.ID) (engine.Snapshot, error) {
	f.called("get %s", id)
	return f.snap, f.err
}

func (f *fake) Wait(ctx context.Context, _ job.Owner, id job.ID, wait time.Duration) (engine.Snapshot, error) {
	f.called("wait %s", id)
	return f.snap, f.waiting(ctx, wait)
}

func (f *fake) List(_ context.Context, filter job.Filter) ([]job.Job, job.ID, error) {
	f.called("list")
	f.filter = filter
	return f.page, f.next, f.err
}

func (f *fake) Output(ctx context.Context, _ job.Owner, _ job.ID, after int64, wait time.Duration) (engine.Update, error) {
	f.called("output")
	f.after = after
	return engine.Update{Job: new(f.snap.Job), Entries: f.entries}, f.waiting(ctx, wait)
}

func (f *fake) Result(_ context.Context, _ job.Owner, _ job.ID, from int64, limit int) (job.ResultPart, error) {
	f.called("result")
	f.resLimit = max(f.resLimit, limit)
	body := f.res.Body[from:]
	return job.ResultPart{ContentType: f.res.ContentType, Size: int64(len(f.res.Body)), Body: body[:min(limit, len(body))]}, f.resErr
}

func (f *fake) Watch(_ context.Context, _ job.Owner, _ job.ID, after int64) (stream.Watcher, error) {
	f.called("watch")
	f.after = after
	if f.err != nil {
		return nil, f.err
	}
	return f.watch(after), nil
}

func (f *fake) Queue(name string) (engine.Queue, error) {
	if name != "sim" {
		return engine.Queue{}, job.Errorf(job.UnknownQueue, "there is no queue %s; there is sim", job.Quote(name))
	}
	return testQueue(), nil
}

func (f *fake) Queues(context.Context) ([]engine.QueueView, error) {
	return []engine.QueueView{testQueueView()}, f.err
}

func testQueueView() engine.QueueView {
	return engine.QueueView{
		Queue:        testQueue(),
		Counts:       job.Counts{Scheduled: 1, Queued: 2, Parked: 9, Running: 3, Succeeded: 4, Failed: 5, Cancelled: 6, Expired: 7, Retried: 8, WaitingBytes: 4096},
		OldestQueued: 1500 * time.Millisecond,
		Wait:         time.Second, Run: 2 * time.Second,
	}
}

func testQueue() engine.Queue {
	return engine.Queue{
		Name: "sim", Executor: "sim", Concurrency: 8, MaxAttempts: 4,
		MaxRunning: 16, MaxDepth: 100, MaxBytes: 1 << 30, KeyRunning: 2, KeyWaiting: 50,
		Policy: job.Policy{
			Timeouts: job.Timeouts{Lease: 30 * time.Second, RunSoft: 290 * time.Second, RunHard: 300 * time.Second},
			Retry:    job.Retry{Backoff: 2 * time.Second, For: time.Hour, AfterOutput: job.RestartAfterOutput},
		},
	}
}

// handler is the API over the fake, behind the gate.
func (f *fake) handler() http.Handler { return f.handlerUntil(context.Background()) }

func (f *fake) handlerUntil(stopping context.Context) http.Handler {
	mux := gate.NewMux()
	New(Config{Engine: f, Gate: f.gate, Stopping: stopping}).Register(mux)
	return openapitest.CheckHandler(f.t, (&gate.Gate{Listen: []string{"127.0.0.1:8080"}}).Handler(mux))
}

// ask sends one request with a method, a path, a body, and headers in pairs.
func (f *fake) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.handler().ServeHTTP(w, request(method, path, body, headers...))
	return w
}

func request(method, path, body string, headers ...string) *http.Request {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:5000"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}
