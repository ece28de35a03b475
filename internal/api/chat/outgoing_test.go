package chat

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// testReader is a client that keeps the text of the newest attempt and the cursor from
// which to resume.
type testReader struct {
	text    string
	seq     int64
	percent float64
}

func (r *testReader) add(t fataler, frames []any) {
	for _, frame := range frames {
		var seq int64
		switch f := frame.(type) {
		case deltaFrame:
			r.text, seq = r.text+f.Text, f.Seq
			if f.Text == "" || seq <= r.seq {
				t.Fatalf("after %d comes the delta %+v", r.seq, f)
			}
		case resetFrame:
			r.text, r.percent, seq = "", 0, f.Seq
		case progressFrame:
			if seq = f.Seq; f.Percent < r.percent {
				t.Fatalf("progress falls from %v to %v", r.percent, f.Percent)
			}
			r.percent = f.Percent
		}
		if seq < r.seq {
			t.Fatalf("after %d comes %+v", r.seq, frame)
		}
		r.seq = seq
	}
}

type fataler interface{ Fatalf(string, ...any) }

// drawLog draws the log of a task over a few attempts, and the text of the last one.
func drawLog(t *rapid.T) (log []job.Entry, text string) {
	attempt := 1
	percent := 0.0
	for range rapid.IntRange(0, 30).Draw(t, "entries") {
		e := job.Entry{Seq: int64(len(log) + 1), Attempt: attempt, Events: 1}
		switch e.Kind = rapid.SampledFrom([]job.Kind{job.KindText, job.KindText, job.KindText, job.KindJSON, job.KindLog, job.KindProgress, job.KindAttempt}).Draw(t, "kind"); e.Kind {
		case job.KindText:
			piece := rapid.StringN(1, 8, -1).Draw(t, "piece")
			text += piece
			e.Data = []byte(piece)
		case job.KindProgress:
			percent = min(100, percent+float64(rapid.IntRange(0, 20).Draw(t, "more")))
			e.Data, _ = json.Marshal(job.Progress{Percent: percent, Status: "Working"})
		case job.KindAttempt:
			attempt++
			e.Attempt, text, percent = attempt, "", 0
		}
		log = append(log, e)
	}
	return log, text
}

// A client gets the text of the last attempt for any split of the log into updates, and for any
// reconnects from its last cursor.
func TestTextIsIndependentOfUpdateBoundaries(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		log, text := drawLog(t)
		var client testReader
		n := encoder{task: "t"}
		for done := 0; done < len(log); {
			upto := rapid.IntRange(done+1, len(log)).Draw(t, "upto")
			u := engine.Update{Job: &job.Job{}, Entries: log[done:upto]}
			u.Job.State, u.Job.Cursor = job.Running, int64(rapid.IntRange(upto, len(log)).Draw(t, "cursor"))
			u.Job.Progress = lastReport(log[:u.Job.Cursor])
			frames := n.update(u)
			received := rapid.IntRange(0, len(frames)).Draw(t, "received")
			client.add(t, frames[:received])
			done = upto
			if received < len(frames) || rapid.Bool().Draw(t, "lost") {
				n = encoder{task: "t", seq: client.seq}
				done = int(client.seq)
				client.percent = 0 // a new watch begins with the current progress
			}
			if rapid.IntRange(0, 50).Draw(t, "stop") == 0 {
				break // the client learns nothing of the rest
			}
		}
		rest := engine.Update{Job: &job.Job{}, Entries: log[client.seq:]}
		rest.Job.State, rest.Job.Cursor = job.Succeeded, int64(len(log))
		client.percent = 0
		n = encoder{task: "t", seq: client.seq}
		client.add(t, n.update(rest))
		if client.text != text || client.percent != 100 {
			t.Fatalf("the client has %q at %v%%, want %q", client.text, client.percent, text)
		}
	})
}

// lastReport returns the progress of a job with this log.
func lastReport(log []job.Entry) (p job.Progress) {
	for _, e := range log {
		switch e.Kind {
		case job.KindProgress:
			_ = json.Unmarshal(e.Data, &p)
		case job.KindAttempt:
			p = job.Progress{}
		}
	}
	return p
}

func TestLateWatcherGetsLimitedDeltas(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", 1000)
	u := engine.Update{Job: &job.Job{}}
	for i := range 100 {
		u.Entries = append(u.Entries, job.Entry{Seq: int64(i + 1), Kind: job.KindText, Data: []byte(piece)})
	}
	u.Job.State, u.Job.Cursor = job.Running, 100
	n := encoder{task: "t"}
	frames := n.update(u)
	var all int
	for _, frame := range frames {
		if d, ok := frame.(deltaFrame); ok {
			if len(d.Text) > maxDelta {
				t.Fatalf("a delta of %d bytes", len(d.Text))
			}
			all += len(d.Text)
		}
	}
	if len(frames) > 6 || all != 100_000 {
		t.Fatalf("%d bytes in %d messages", all, len(frames))
	}
}

func TestProgressInEveryState(t *testing.T) {
	t.Parallel()
	half := job.Progress{Percent: 50, Status: "Halfway"}
	for _, c := range []struct {
		rule string
		job  job.Job
		want job.Progress
	}{
		{"in the queue", job.Job{State: job.Queued}, job.Progress{Status: "Waiting"}},
		{"before its time", job.Job{State: job.Scheduled}, job.Progress{Status: "Waiting"}},
		{"between two attempts", job.Job{State: job.Scheduled, Progress: half, Failure: &job.Failure{Message: "the model is away"}}, job.Progress{Status: "Waiting to try again: the model is away"}},
		{"between two attempts, for a long reason", job.Job{State: job.Queued, Failure: &job.Failure{Message: strings.Repeat("é", 200)}}, job.Progress{Status: "Waiting to try again: " + strings.Repeat("é", 100) + "…"}},
		{"running without output", job.Job{State: job.Running}, job.Progress{Status: "Working"}},
		{"running", job.Job{State: job.Running, Progress: half}, half},
		{"being cancelled", job.Job{State: job.Running, Progress: half, CancelRequestedAt: time.Unix(1, 0)}, job.Progress{Percent: 50, Status: "Cancelling"}},
		{"done", job.Job{State: job.Succeeded, Progress: half}, job.Progress{Percent: 100, Status: "Complete"}},
		{"failed", job.Job{State: job.Failed, Progress: half}, job.Progress{Percent: 50, Status: "Failed"}},
		{"cancelled", job.Job{State: job.Cancelled, Progress: half}, job.Progress{Percent: 50, Status: "Cancelled"}},
		{"expired", job.Job{State: job.Expired}, job.Progress{Status: "Expired"}},
	} {
		if got := progressOf(&c.job); got != c.want {
			t.Errorf("%s it is %+v, want %+v", c.rule, got, c.want)
		}
	}
}

func TestWatchEndsWithAnswerOrError(t *testing.T) {
	t.Parallel()
	id := conversation.MessageID{Conversation: conversation.ID(job.NewUUID()), Number: 2}
	n := encoder{task: "t", conversation: "conv123", seq: 9}
	for _, c := range []struct {
		answer conversation.Message
		want   string
	}{
		{conversation.Message{ID: id, Status: conversation.Completed, Content: "<all>"},
			`{"type":"chat_response","task_id":"t","seq":9,"answer":"<all>","conversation_id":"conv123"}`},
		{conversation.Message{ID: id, Status: conversation.Failed, Content: "ha", Error: &conversation.Error{Code: "c", Message: "m"}},
			`{"type":"error","task_id":"t","seq":9,"code":"c","message":"m","error":"m","status":"failed","outcome":"failed"}`},
		{conversation.Message{ID: id, Status: conversation.Expired, Error: &conversation.Error{Code: "c", Message: "m"}},
			`{"type":"error","task_id":"t","seq":9,"code":"c","message":"m","error":"m","status":"failed","outcome":"expired"}`},
	} {
		if got := string(encodeFrame(n.end(c.answer))); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
