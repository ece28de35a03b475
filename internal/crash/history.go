package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/meanwhile-run/meanwhile/client"
)

// history has the calls about each job, with the times at which they began and returned. It is
// linearizable if each call can have happened at one moment between these times, so that every
// answer agrees with the calls before it. All servers together must then behave like one.
type history struct {
	began time.Time // set once

	mu  sync.Mutex
	ops map[string][]porcupine.Operation // guarded by mu; by idempotency key
}

func newHistory() *history {
	return &history{began: time.Now(), ops: map[string][]porcupine.Operation{}}
}

// verb is what a call asks for.
type verb string

const (
	submitVerb verb = "submit"
	getVerb    verb = "get"
	cancelVerb verb = "cancel"
	retryVerb  verb = "retry"

	// cancelledVerb is the answer of a cancel. A server may read it after the cancel, and the job
	// may have gone on meanwhile.
	cancelledVerb verb = "the answer of a cancel"
)

// view is what an answer says about a job. The zero value stands for a call without an answer.
type view struct {
	id              string
	status          client.Status
	attempt         int
	cursor          int64
	cancelRequested bool
	finished        int64 // nanoseconds since 1970
}

func viewOf(j *client.Job) view {
	v := view{id: j.ID, status: j.Status, attempt: j.Attempt, cursor: j.Cursor, cancelRequested: !j.CancelRequestedAt.IsZero()}
	if !j.FinishedAt.IsZero() {
		v.finished = j.FinishedAt.UnixNano()
	}
	return v
}

// now is the time of the history.
func (h *history) now() int64 { return int64(time.Since(h.began)) }

// add adds a call that began at a time. It is answered by j, or its outcome is unknown. A call
// that was refused is not added: it has no effect.
func (h *history) add(key string, v verb, began int64, j *client.Job, err error) {
	op := porcupine.Operation{Input: v, Call: began, Return: h.now(), Output: view{}}
	switch {
	case err == nil:
		op.Output = viewOf(j)
	case !outcomeUnknown(err), v == getVerb:
		return
	default:
		op.Return = math.MaxInt64 // it may still happen
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v == cancelVerb && err == nil {
		answer := op
		answer.Input, op.Output = cancelledVerb, view{}
		h.ops[key] = append(h.ops[key], answer)
	}
	h.ops[key] = append(h.ops[key], op)
}

// outcomeUnknown reports whether a failed call may have had its effect.
func outcomeUnknown(err error) bool {
	code := client.CodeOf(err)
	return code == client.CodeUnreachable || code == ""
}

// jobState is the state of the model: the last answer, and what was asked since.
type jobState struct {
	exists  bool
	last    view // zero until the first answer
	counted int  // number of attempts that count
	cancel  bool // a cancel was requested
}

// jobModel describes a job as its callers see it. A job moves on between two calls by itself, and
// only forward.
var jobModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{jobState{}} },
	Step: func(state, input, output any) []any { return stepJob(state.(jobState), input.(verb), output.(view)) },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%s: %+v", input, output)
	},
}

func stepJob(s jobState, v verb, o view) []any {
	if !s.exists && v != submitVerb {
		return nil // a job that was not submitted cannot be found
	}
	s.exists = true
	known := o != view{}
	switch {
	case v == cancelVerb && !s.last.status.Ended():
		asked := s
		asked.cancel = true
		return []any{s, asked} // it may come too late, or be lost
	case v == cancelledVerb:
		return observeJob(s, o, o.cancelRequested || o.status.Ended())
	case v == retryVerb && s.last.status != client.Succeeded:
		again := jobState{exists: true, last: view{id: s.last.id, cursor: s.last.cursor}}
		if !known {
			return []any{s, again}
		}
		return observeJob(again, o, true)
	case !known:
		return []any{s}
	}
	return observeJob(s, o, true)
}

// observeJob returns the state after an answer; none if the job cannot have come there.
func observeJob(s jobState, o view, allowed bool) []any {
	switch was := s.last; {
	case !allowed,
		was.id != "" && o.id != was.id,
		was.status.Ended() && o != was,
		o.cursor < was.cursor,
		o.cancelRequested && !s.cancel,
		s.cancel && !o.cancelRequested && !o.status.Ended(),
		was.cancelRequested && o.status.Ended() && o.status != client.Cancelled,
		o.attempt < s.counted,
		o.status == client.Running && o.attempt <= s.counted:
		return nil
	}
	s.last = o
	// The attempt of a lease that was never used does not count.
	if s.counted = o.attempt; o.status == client.Running {
		s.counted--
	}
	return []any{s}
}

// verify checks every job's calls, and returns the number of jobs and calls and a sentence for
// each job whose calls contradict each other.
func (h *history) verify() (jobs, calls int, violations []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	model := jobModel.ToModel()
	for key, ops := range h.ops {
		calls += len(ops)
		if porcupine.CheckOperations(model, ops) {
			continue
		}
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call/1000 - b.Call/1000) })
		var lines strings.Builder
		for _, op := range ops {
			fmt.Fprintf(&lines, "\n\t%v to %v: %s", time.Duration(op.Call), time.Duration(op.Return), jobModel.DescribeOperation(op.Input, op.Output))
		}
		violations = append(violations, fmt.Sprintf("the calls about %s are not linearizable:%s", key, &lines))
	}
	return len(h.ops), calls, violations
}
