package bench

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// floorTime is how long the HTTP floor is measured.
const floorTime = 2 * time.Second

// NewFloor returns a handler that decodes every submit and answers from memory, with a job
// of typical size. It shows the cost of a load without a store. It also has watchers: a
// client of floorEvents gets its last event after a call of floorEnd.
func NewFloor() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", floorAnswer)
	mux.HandleFunc("POST /v1/jobs/batch", floorBatch)
	var once sync.Once
	ended := make(chan struct{})
	mux.HandleFunc("GET "+floorEvents, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flusher := http.NewResponseController(w)
		_, _ = io.WriteString(w, "event: snapshot\ndata: "+floorJob+"\n\n")
		_ = flusher.Flush()
		select {
		case <-ended:
			_, _ = io.WriteString(w, "event: done\ndata: "+floorJob+"\n\n")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST "+floorEnd, func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(ended) })
	})
	return mux
}

// The paths of the floor's watchers.
const (
	floorEvents = "/events"
	floorEnd    = "/end"
)

// floorSubmission is the part of a submission that the floor decodes.
type floorSubmission struct {
	Queue string          `json:"queue"`
	Input json.RawMessage `json:"input"`
}

func floorAnswer(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && !floorRead(w, r, new(floorSubmission)) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, floorJob)
}

// floorBatch answers a batch with the same number of jobs.
func floorBatch(w http.ResponseWriter, r *http.Request) {
	var batch struct {
		Jobs []floorSubmission `json:"jobs"`
	}
	if !floorRead(w, r, &batch) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	jobs := strings.Repeat(floorJob+",", len(batch.Jobs))
	_, _ = io.WriteString(w, `{"object":"list","data":[`+strings.TrimSuffix(jobs, ",")+`]}`)
}

func floorRead(w http.ResponseWriter, r *http.Request, body any) bool {
	err := json.NewDecoder(io.LimitReader(r.Body, maxFloorBody)).Decode(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

const maxFloorBody = 32 << 20 // bytes; larger than any batch of a bench

const floorJob = `{"id":"job_06b8k3v0000000000000000000","object":"job","queue":"sim","status":"queued","key":"","priority":5,` +
	`"attempt":0,"max_attempts":4,"queue_position":0,"estimated_time_seconds":null,"progress":{"percent":0,"status":""},` +
	`"output_text":"","cursor":0,"result":null,"error":null,"usage":null,"metadata":{},"cancel_requested_at":null,` +
	`"created_at":"2030-01-31T09:00:00.000Z","run_at":"2030-01-31T09:00:00.000Z","started_at":null,"finished_at":null,` +
	`"expires_at":null,"poll_after_ms":1000,"urls":{"self":"/v1/jobs/job_06b8k3v0000000000000000000",` +
	`"output":"/v1/jobs/job_06b8k3v0000000000000000000/output","events":"/v1/jobs/job_06b8k3v0000000000000000000/events",` +
	`"result":"/v1/jobs/job_06b8k3v0000000000000000000/result","cancel":"/v1/jobs/job_06b8k3v0000000000000000000/cancel"}}`

// floor measures the submits of a bench on the floor. The floor runs in its own process, as
// a real server does.
func (o *Options) floor(ctx context.Context, clients int, dial dialFunc) (*Figure, error) {
	return o.floorWithBatch(ctx, clients, dial, 1)
}

// floorWithBatch measures the floor with this many jobs in each submit.
func (o *Options) floorWithBatch(ctx context.Context, clients int, dial dialFunc, batch int) (*Figure, error) {
	o.Step("the HTTP floor")
	p, err := start(ctx, o.Floor, nil, o.Log)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	c, closeClient, err := dial(ctx, p.url)
	if err != nil {
		return nil, err
	}
	defer closeClient()
	s := o.submission()
	began := time.Now()
	out, err := runLoad(ctx, clients, newBudget(maxJobs, min(floorTime, o.Duration)), func(ctx context.Context) error {
		if batch > 1 {
			return submitBatch(ctx, c, repeatJob(s, batch))
		}
		_, err := c.Submit(ctx, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	n := len(out.samples) * batch
	return &Figure{
		Name: "http_floor", How: "a submit answered from memory", Clients: clients, Jobs: n,
		Seconds: seconds(took), PerS: perSecond(n, took), Latency: latencyOf(out.samples),
	}, nil
}
