package jobs

import (
	"math"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// queueObject is the JSON of a queue. What counts the jobs of all tenants is null for a caller that
// may not know of other tenants.
type queueObject struct {
	Name         string          `json:"name"`
	Object       string          `json:"object"`
	Configured   bool            `json:"configured"` // false: only its stored jobs are left
	Executor     string          `json:"executor"`
	Concurrency  int             `json:"concurrency"`
	Paused       bool            `json:"paused"`
	HeldBackBy   *job.HeldBackBy `json:"held_back_by"` // null: nothing holds it back
	Counts       *queueCounts    `json:"counts"`
	Totals       *queueTotals    `json:"totals"`
	OldestQueued *float64        `json:"oldest_queued_s"`
	WaitingBytes *int64          `json:"waiting_bytes"` // of the waiting jobs' input and files
	Limits       queueLimits     `json:"limits"`
	Estimate     queueEstimate   `json:"estimate"`
}

// queueCounts are the current numbers of unfinished jobs.
type queueCounts struct {
	Scheduled int64 `json:"scheduled"`
	Queued    int64 `json:"queued"`
	Parked    int64 `json:"parked"`
	Running   int64 `json:"running"`
}

// queueTotals count the ends and retries since the queue exists.
type queueTotals struct {
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Expired   int64 `json:"expired"`
	Retried   int64 `json:"retried"`
}

// queueLimits are the limits of a queue. 0 is no limit.
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

// queueEstimate estimates the times of a job that is submitted now. Both are null before
// the first job has ended. The wait is null in a paused queue.
type queueEstimate struct {
	Wait *float64 `json:"wait_s"`
	Run  *float64 `json:"run_s"`
}

// queueList is the JSON of the list of all queues. It has only one page.
type queueList struct {
	Object string        `json:"object"`
	Data   []queueObject `json:"data"`
	Next   *string       `json:"next"`
}

func newQueueObject(caller *gate.Caller, q *engine.QueueView) queueObject {
	c := q.Counts
	o := queueObject{
		Name: q.Name, Object: "queue", Configured: !q.Unconfigured, Executor: q.Executor, Concurrency: q.Concurrency, Paused: c.Paused,
		Limits: queueLimits{
			MaxRunning: q.MaxRunning, MaxDepth: q.MaxDepth, MaxBytes: q.MaxBytes,
			PerKey: queuePerKey{q.KeyRunning, q.KeyWaiting}, MaxAttempts: q.MaxAttempts,
		},
	}
	if !caller.SeesAllTenants() {
		return o
	}
	oldest := roundedSeconds(q.OldestQueued)
	o.Counts = &queueCounts{c.Scheduled, c.Queued, c.Parked, c.Running}
	o.Totals = &queueTotals{c.Succeeded, c.Failed, c.Cancelled, c.Expired, c.Retried}
	o.OldestQueued, o.WaitingBytes = &oldest, &c.WaitingBytes
	if q.HeldBackBy != "" {
		o.HeldBackBy = &q.HeldBackBy
	}
	if q.Run > 0 {
		wait, run := roundedSeconds(q.Wait), roundedSeconds(q.Run)
		if o.Estimate.Run = &run; !c.Paused {
			o.Estimate.Wait = &wait
		}
	}
	return o
}

// roundedSeconds returns a duration in seconds, rounded to the millisecond.
func roundedSeconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// isShown reports whether a caller sees a queue. One that is no longer configured exists because some
// tenant has jobs in it.
func isShown(c *gate.Caller, q *engine.QueueView) bool { return !q.Unconfigured || c.SeesAllTenants() }

// queues writes all queues, sorted by name.
func (a *API) queues(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	views, err := a.engine.Queues(r.Context())
	if err != nil {
		return err
	}
	caller := gate.CallerFrom(r)
	list := queueList{Object: "list", Data: []queueObject{}}
	for i := range views {
		if isShown(caller, &views[i]) {
			list.Data = append(list.Data, newQueueObject(caller, &views[i]))
		}
	}
	setNoStore(w)
	api.WriteJSON(w, http.StatusOK, list)
	return nil
}

// queue writes one queue.
func (a *API) queue(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	name := r.PathValue("queue")
	views, err := a.engine.Queues(r.Context())
	if err != nil {
		return err
	}
	for i := range views {
		if caller := gate.CallerFrom(r); views[i].Name == name && isShown(caller, &views[i]) {
			setNoStore(w)
			api.WriteJSON(w, http.StatusOK, newQueueObject(caller, &views[i]))
			return nil
		}
	}
	if _, err := a.engine.Queue(name); err != nil {
		return err
	}
	return job.Errorf(job.UnknownQueue, "there is no queue %s", job.Quote(name))
}

// setPaused pauses or resumes a queue, and writes the queue. A paused queue gives no jobs to
// workers.
func (a *API) setPaused(paused bool) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := requireEmpty(r); err != nil {
			return err
		}
		view, err := a.engine.SetPaused(r.Context(), r.PathValue("queue"), paused)
		if err != nil {
			return err
		}
		api.WriteJSON(w, http.StatusOK, newQueueObject(gate.CallerFrom(r), &view))
		return nil
	}
}
