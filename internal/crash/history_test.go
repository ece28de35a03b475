package main

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/meanwhile-run/meanwhile/client"
)

func TestHistoryFindsWhatNoSingleServerWouldAnswer(t *testing.T) {
	t.Parallel()
	at := func(status client.Status, attempt int) view {
		return view{id: "job_1", status: status, attempt: attempt}
	}
	failed := view{id: "job_1", status: client.Failed, attempt: 1, finished: 1}
	ended := view{id: "job_1", status: client.Succeeded, attempt: 1, finished: 1}
	asked := view{id: "job_1", status: client.Running, attempt: 1, cancelRequested: true}
	cancelled := view{id: "job_1", status: client.Cancelled, attempt: 1, cancelRequested: true, finished: 2}
	// in returns calls that follow each other. Each has an input and an output.
	in := func(calls ...any) (ops []porcupine.Operation) {
		for i := 0; i < len(calls); i += 2 {
			ops = append(ops, porcupine.Operation{Input: calls[i].(verb), Output: calls[i+1].(view), Call: int64(10 * i), Return: int64(10*i + 5)})
		}
		return ops
	}
	together := in(submitVerb, at(client.Queued, 0), cancelVerb, view{}, getVerb, at(client.Running, 1))
	together[1].Return = 100
	for name, c := range map[string]struct {
		ops []porcupine.Operation
		ok  bool
	}{
		"a job runs and ends":                       {in(submitVerb, at(client.Queued, 0), getVerb, at(client.Running, 1), getVerb, ended, getVerb, ended), true},
		"an attempt is lost":                        {in(submitVerb, at(client.Running, 1), getVerb, at(client.Queued, 1), getVerb, at(client.Running, 2)), true},
		"a lease was never used":                    {in(submitVerb, at(client.Running, 1), getVerb, at(client.Queued, 0), getVerb, at(client.Running, 1)), true},
		"a cancel without an answer had its effect": {in(submitVerb, at(client.Running, 1), cancelVerb, view{}, getVerb, asked, getVerb, cancelled), true},
		"a cancel without an answer had no effect":  {in(submitVerb, at(client.Running, 1), cancelVerb, view{}, getVerb, ended), true},
		"a cancel came too late":                    {in(submitVerb, at(client.Running, 1), cancelVerb, view{}, cancelledVerb, ended), true},
		"a retry runs again":                        {in(submitVerb, failed, retryVerb, at(client.Queued, 0), getVerb, ended), true},
		"a read during a cancel":                    {together, true},

		"a key has two jobs":          {in(submitVerb, at(client.Queued, 0), submitVerb, view{id: "job_2", status: client.Queued}), false},
		"a job is read too early":     {in(getVerb, at(client.Queued, 0), submitVerb, at(client.Queued, 0)), false},
		"an ended job runs":           {in(submitVerb, ended, getVerb, at(client.Running, 1)), false},
		"an end changes":              {in(submitVerb, ended, getVerb, view{id: "job_1", status: client.Succeeded, attempt: 1, finished: 2}), false},
		"an old state is read":        {in(submitVerb, at(client.Running, 2), getVerb, at(client.Running, 1)), false},
		"an attempt counts no longer": {in(submitVerb, at(client.Queued, 1), getVerb, at(client.Queued, 0)), false},
		"output is missing":           {in(submitVerb, view{id: "job_1", status: client.Running, attempt: 1, cursor: 2}, getVerb, at(client.Running, 1)), false},
		"a cancel is forgotten":       {in(submitVerb, at(client.Running, 1), cancelVerb, view{}, cancelledVerb, asked, getVerb, at(client.Running, 1)), false},
		"a cancel has no effect":      {in(submitVerb, at(client.Running, 1), cancelVerb, view{}, cancelledVerb, asked, getVerb, ended), false},
		"a cancel is not shown":       {in(submitVerb, at(client.Running, 1), cancelVerb, view{}, cancelledVerb, at(client.Running, 1)), false},
		"nobody asked for the cancel": {in(submitVerb, at(client.Running, 1), getVerb, asked), false},
	} {
		if ok := porcupine.CheckOperations(jobModel.ToModel(), c.ops); ok != c.ok {
			t.Errorf("%s: %v, want %v", name, ok, c.ok)
		}
	}
}
