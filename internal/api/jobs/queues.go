package jobs

import (
	"math"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// queueObject is a queue on the wire.
type queueObject struct {
	Name         string          `json:"name"`
	Object       string          `json:"object"`
	Executor     string          `json:"executor"`
	Concurrency  int             `json:"concurrency"`
	Paused       bool            `json:"paused"`
	HeldBackBy   *job.HeldBackBy `json:"held_back_by"` // null for nothing
	Counts       queueCounts     `json:"counts"`
	Totals       queueTotals     `json:"totals"`
	OldestQueued float64         `json:"oldest_queued_s"`
	WaitingBytes int64           `json:"waiting_bytes"` // of the waiting jobs' input and files
	Limits       queueLimits     `json:"limits"`
	Estimate     queueOutlook    `json:"estimate"`
}

// queueCounts are the unfinished jobs, now.
type queueCounts struct {
	Scheduled int64 `json:"scheduled"`
	Queued    int64 `json:"queued"`
	Parked    int64 `json:"parked"`
	Running   int64 `json:"running"`
}

// queueTotals are the ends and retries, ever.
type queueTotals struct {
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Expired   int64 `json:"expired"`
	Retried   int64 `json:"retried"`
}

// queueLimits are what a queue takes; 0 is no limit.
type queueLimits struct {
	MaxRunning  int         `json:"max_running"`
	MaxDepth    int         `json:"max_depth"`
	MaxBytes    int64       `json:"max_bytes"`
	PerKey      queuePerKey `json:"per_key"`
	MaxAttempts int         `json:"max_attempts"`
}

type queuePerKey struct {
	Running int `json:"running"`
	Waiting int `json:"waiting"`
}

// queueOutlook is what a job submitted now may expect; null before the first job
// has ended, and the wait in a paused queue.
type queueOutlook struct {
	Wait *float64 `json:"wait_s"`
	Run  *float64 `json:"run_s"`
}

// queueList is every queue; there is no next page.
type queueList struct {
	Object string        `json:"object"`
	Data   []queueObject `json:"data"`
	Next   *string       `json:"next"`
}

func objectOf(q *engine.QueueView) queueObject {
	c := q.Counts
	o := queueObject{
		Name: q.Name, Object: "queue", Executor: q.Executor, Concurrency: q.Concurrency, Paused: c.Paused,
		Counts:       queueCounts{c.Scheduled, c.Queued, c.Parked, c.Running},
		Totals:       queueTotals{c.Succeeded, c.Failed, c.Cancelled, c.Expired, c.Retried},
		OldestQueued: rounded(q.OldestQueued), WaitingBytes: c.WaitingBytes,
		Limits: queueLimits{
			MaxRunning: q.MaxRunning, MaxDepth: q.MaxDepth, MaxBytes: q.MaxBytes,
			PerKey: queuePerKey{q.KeyRunning, q.KeyWaiting}, MaxAttempts: q.MaxAttempts,
		},
	}
	if q.HeldBackBy != "" {
		o.HeldBackBy = &q.HeldBackBy
	}
	if q.Run > 0 {
		wait, run := rounded(q.Wait), rounded(q.Run)
		if o.Estimate.Run = &run; !c.Paused {
			o.Estimate.Wait = &wait
		}
	}
	return o
}

// rounded is a duration in seconds, to the millisecond.
func rounded(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// queues answers every queue, by name.
func (f *API) queues(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	views, err := f.engine.Queues(r.Context())
	if err != nil {
		return err
	}
	list := queueList{Object: "list", Data: make([]queueObject, len(views))}
	for i := range views {
		list.Data[i] = objectOf(&views[i])
	}
	dontStore(w)
	api.WriteJSON(w, http.StatusOK, list)
	return nil
}

// queue answers one queue.
func (f *API) queue(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	name := r.PathValue("queue")
	if _, err := f.engine.Queue(name); err != nil {
		return err
	}
	views, err := f.engine.Queues(r.Context())
	if err != nil {
		return err
	}
	for i := range views {
		if views[i].Name == name {
			dontStore(w)
			api.WriteJSON(w, http.StatusOK, objectOf(&views[i]))
			return nil
		}
	}
	return job.Errorf(job.UnknownQueue, "there is no queue %s", job.Quote(name))
}

// setPaused stops a queue from giving jobs to workers, or lets it go on, and
// answers the queue.
func (f *API) setPaused(paused bool) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := nothingMore(r); err != nil {
			return err
		}
		view, err := f.engine.SetPaused(r.Context(), r.PathValue("queue"), paused)
		if err != nil {
			return err
		}
		api.WriteJSON(w, http.StatusOK, objectOf(&view))
		return nil
	}
}
