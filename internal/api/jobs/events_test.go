package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func entry(seq int64, kind job.Kind, data string) job.Entry {
	return job.Entry{Seq: seq, Attempt: 1, Kind: kind, Events: 1, Data: []byte(data)}
}

// jobAt returns the job in another state and with another cursor.
func jobAt(state job.State, cursor int64) job.Job {
	j := testJob()
	j.State, j.Cursor, j.Attempt = state, cursor, 1
	if state.Ended() {
		j.FinishedAt = moment
	}
	return j
}

func TestStreamSendsWholeJob(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.snap.Job = jobAt(job.Succeeded, 4)
	f.snap.Text = "Hello"
	f.snap.Result = &job.Result{ContentType: "application/json", Body: []byte("{\n\"a\":\r\n1}")}
	watch := &scriptedWatcher{updates: []engine.Update{
		{Job: new(testJob())},
		{Job: new(jobAt(job.Running, 1)), Entries: []job.Entry{entry(1, job.KindProgress, `{"percent":10}`)}},
		{Job: new(jobAt(job.Running, 2)), Entries: []job.Entry{entry(2, job.KindText, "Hel\nlo")}},
		{Job: new(jobAt(job.Running, 3)), Entries: []job.Entry{entry(3, job.KindAttempt, "")}},
		{Job: new(jobAt(job.Succeeded, 4)), Entries: []job.Entry{entry(4, job.KindJSON, "{\"tool\":\n\"x\"}")}},
	}}
	f.watch = func(int64) stream.Watcher { return watch }
	w := f.ask("GET", jobPath+"/events", "")
	got := parseEvents(w.Body.String())
	const want = "snapshot@0 progress@1 snapshot@1 output@2 attempt@3 output@4 done@4.done"
	if eventNames(got) != want {
		t.Fatalf("got  %s\nwant %s", eventNames(got), want)
	}
	for i, want := range map[int]string{
		1: `{"seq":1,"attempt":1,"kind":"progress","data":{"percent":10}}`,
		3: `{"seq":2,"attempt":1,"kind":"text","data":"Hel\nlo"}`,
		4: `{"seq":3,"attempt":1,"kind":"attempt","data":null}`,
		5: `{"seq":4,"attempt":1,"kind":"json","data":{"tool": "x"}}`,
	} {
		if got[i].data != want {
			t.Errorf("event %d:\ngot  %s\nwant %s", i, got[i].data, want)
		}
	}
	if done := got[6].data; !strings.Contains(done, `"result":{ "a":  1}`) || !strings.Contains(done, `"output_text":"Hello"`) {
		t.Errorf("done: %s", done)
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no", "Cache-Control": "no-store"} {
		if w.Header().Get(name) != want {
			t.Errorf("%s: %q", name, w.Header().Get(name))
		}
	}
	if !watch.isClosed() {
		t.Error("the watch was left open")
	}
}

// The event done of a job that was deleted or queued again has the job as the watch saw
// it end.
func TestDoneShowsJobAsItEnded(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fake){
		"deleted":                  func(f *fake) { f.err = nil; f.snap.Job = job.Job{} },
		"after done, queued again": func(f *fake) { f.snap.Job = jobAt(job.Queued, 1) },
		"ended again":              func(f *fake) { f.snap.Job = jobAt(job.Failed, 1); f.snap.FinishedAt = moment.Add(time.Hour) },
	} {
		f := newFake(t)
		f.watch = func(int64) stream.Watcher {
			change(f)
			return &scriptedWatcher{updates: updatesOf(jobAt(job.Succeeded, 0))}
		}
		got := parseEvents(f.ask("GET", jobPath+"/events", "").Body.String())
		if eventNames(got) != "snapshot@0 done@0.done" || !strings.Contains(got[1].data, `"status":"succeeded"`) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Last-Event-ID comes before the parameter after, because a browser repeats the URL with
// the old parameter.
func TestStreamResumesAtLastEventID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		query, last string
		after       int64
	}{
		{"", "", 0}, {"?after=2", "", 2}, {"?after=2", "3", 3}, {"", "3", 3}, {"?after=2.done", "", 2}, {"?after=", "", 0},
	} {
		f := newFake(t)
		f.watch = func(int64) stream.Watcher {
			return &scriptedWatcher{updates: []engine.Update{{Job: new(jobAt(job.Succeeded, 3)), Entries: []job.Entry{entry(3, job.KindText, "x")}}}}
		}
		var headers []string
		if tt.last != "" {
			headers = []string{"Last-Event-ID", tt.last}
		}
		f.ask("GET", jobPath+"/events"+tt.query, "", headers...)
		if f.after != tt.after {
			t.Errorf("%q, %q: after %d", tt.query, tt.last, f.after)
		}
	}
}

// A client that resumes after done gets 204, unless the job has run again since.
func TestResumeAfterDoneGets204(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule   string
		last   string
		now    job.Job
		status int
	}{
		{"after done", "3.done", jobAt(job.Failed, 3), 204},
		{"after the last entry", "3", jobAt(job.Failed, 3), 200},
		{"after an earlier done, ended again", "2.done", jobAt(job.Failed, 3), 200},
		{"after done, queued again", "3.done", jobAt(job.Queued, 3), 200},
	} {
		f := newFake(t)
		f.watch = func(int64) stream.Watcher {
			ended := jobAt(job.Failed, 3)
			up := engine.Update{Job: new(ended), Entries: []job.Entry{entry(3, job.KindText, "x")}}
			if strings.HasPrefix(tt.last, "3") {
				up.Entries = nil
			}
			return &scriptedWatcher{updates: []engine.Update{{Job: new(tt.now), Entries: up.Entries}, {Job: new(ended)}}}
		}
		w := f.ask("GET", jobPath+"/events", "", "Last-Event-ID", tt.last)
		if w.Code != tt.status || w.Code == 204 && w.Body.Len() > 0 {
			t.Errorf("%s: %d %s", tt.rule, w.Code, w.Body)
		}
		if w.Code == 200 && !strings.HasSuffix(eventNames(parseEvents(w.Body.String())), "done@3.done") {
			t.Errorf("%s: %s", tt.rule, eventNames(parseEvents(w.Body.String())))
		}
	}
}

// A refusal before the first event is a problem, not a stream.
func TestRefusedWatchIsAProblem(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.err = job.Errorf(job.NotFound, "there is no such job")
	w := f.ask("GET", jobPath+"/events", "")
	checkProblem(t, "not found", w.Code, w.Body.Bytes(), 404, job.NotFound, "")
}

func TestHeadOfEventsEndsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.watch = func(int64) stream.Watcher { return &scriptedWatcher{updates: updatesOf(testJob())} }
	if w := f.ask("HEAD", jobPath+"/events", ""); w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream; charset=utf-8" || w.Body.Len() > 0 {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// startStream runs the events call in a bubble. ended is closed when it ends.
func startStream(f *fake, w *recorder, stopping context.Context) (disconnect func(), ended chan struct{}) {
	ctx, disconnect := context.WithCancel(context.Background())
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		f.handlerUntil(stopping).ServeHTTP(w, request("GET", jobPath+"/events", "").WithContext(ctx))
	}()
	return disconnect, ended
}

// A silent stream sends a heartbeat every 15 seconds, and each event is flushed.
func TestSilentStreamSendsHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := newFake(t), newRecorder()
		watch := &scriptedWatcher{updates: updatesOf(testJob())}
		f.watch = func(int64) stream.Watcher { return watch }
		disconnect, ended := startStream(f, w, nil)
		for i := range 4 {
			synctest.Wait()
			if got := strings.Count(w.text(), "\n:\n"); got != i {
				t.Errorf("after %d s: %d comments", 15*i, got)
			}
			if got := w.flushed(); got != 1+i {
				t.Errorf("after %d s: %d flushes", 15*i, got)
			}
			time.Sleep(15 * time.Second)
		}
		disconnect()
		<-ended
		if !watch.isClosed() {
			t.Error("the watch was left open")
		}
	})
}

// A server that stops asks the clients of its streams to reconnect.
func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := newFake(t), newRecorder()
		f.watch = func(int64) stream.Watcher { return &scriptedWatcher{updates: updatesOf(testJob())} }
		stopping, stop := context.WithCancel(context.Background())
		disconnect, ended := startStream(f, w, stopping)
		defer disconnect()
		synctest.Wait()
		stop()
		<-ended
		if !strings.Contains(w.text(), "\nretry: 1000\n:") {
			t.Errorf("%q", w.text())
		}
		if got := eventNames(parseEvents(w.text())); got != "snapshot@0" {
			t.Errorf("%s", got)
		}
	})
}

// An EventSource that connects while the server stops reconnects. After an error it would not.
func TestStreamDuringStopAsksToReconnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := newFake(t), newRecorder()
		f.watch = func(int64) stream.Watcher {
			return slowWatcher{&scriptedWatcher{updates: updatesOf(testJob())}}
		}
		stopping, stop := context.WithCancel(context.Background())
		stop()
		disconnect, ended := startStream(f, w, stopping)
		defer disconnect()
		<-ended
		if text := w.text(); !strings.Contains(text, "event: snapshot") || !strings.Contains(text, "\nretry: 1000\n:") {
			t.Errorf("%q", text)
		}
	})
}

// slowWatcher is a watcher whose first read takes until all else waits, and fails if its context
// has ended by then.
type slowWatcher struct{ stream.Watcher }

func (w slowWatcher) Next(ctx context.Context) (engine.Update, error) {
	synctest.Wait()
	if ctx.Err() != nil {
		return engine.Update{}, ctx.Err()
	}
	return w.Watcher.Next(ctx)
}

// A watch that fails ends the stream in the same way, and no event is lost.
func TestFailedWatchEndsStream(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.watch = func(int64) stream.Watcher {
		return &scriptedWatcher{updates: updatesOf(testJob()), err: job.Errorf(job.Unavailable, "the store is gone")}
	}
	w := f.ask("GET", jobPath+"/events", "")
	if !strings.Contains(w.Body.String(), "\nretry: 1000\n:") {
		t.Errorf("%q", w.Body)
	}
}

// writeTime is how long a client may read nothing; see [api.Timeouts].
const writeTime = 30 * time.Second

// A client that reads nothing for 30 seconds is dropped, and its watch closed.
func TestSlowReaderIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := newFake(t), newRecorder()
		w.stuckAfter = 1
		watch := &scriptedWatcher{updates: updatesOf(testJob())}
		f.watch = func(int64) stream.Watcher { return watch }
		began := time.Now()
		_, ended := startStream(f, w, nil)
		<-ended
		if took := time.Since(began); took != writeTime {
			t.Errorf("dropped after %v", took)
		}
		if !watch.isClosed() {
			t.Error("the watch was left open")
		}
	})
}

// A change of the job sends a snapshot; output does not.
func TestSnapshotFollowsChangeOfJob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule   string
		change func(*job.Job)
		want   bool
	}{
		{"another state", func(j *job.Job) { j.State = job.Scheduled }, true},
		{"another running attempt", func(j *job.Job) { j.Attempt = 2 }, true},
		{"a cancel request", func(j *job.Job) { j.CancelRequestedAt = moment }, true},
		{"output", func(j *job.Job) { j.Cursor = 2 }, false},
		{"progress", func(j *job.Job) { j.Progress.Percent = 50 }, false},
	} {
		now := jobAt(job.Running, 1)
		tt.change(&now)
		watch := &scriptedWatcher{updates: []engine.Update{{Job: new(jobAt(job.Running, 1))}, {Job: new(now)}}, err: stream.ErrClientGone}
		f := newFake(t)
		f.watch = func(int64) stream.Watcher { return watch }
		got := strings.Count(f.ask("GET", jobPath+"/events", "").Body.String(), "event: snapshot")
		if (got == 2) != tt.want {
			t.Errorf("%s: %d snapshots", tt.rule, got)
		}
	}
}

// A client that is far behind gets the log in limited pieces. The stream leaves no
// deadline on the connection.
func TestLongLogIsSentInPieces(t *testing.T) {
	t.Parallel()
	f, w := newFake(t), newRecorder()
	up := engine.Update{Job: new(jobAt(job.Succeeded, 100))}
	for i := range int64(100) {
		up.Entries = append(up.Entries, entry(i+1, job.KindText, strings.Repeat("x", 4<<10)))
	}
	f.watch = func(int64) stream.Watcher { return &scriptedWatcher{updates: []engine.Update{up}} }
	f.handler().ServeHTTP(w, request("GET", jobPath+"/events", ""))
	if got := len(parseEvents(w.text())); got != 102 {
		t.Errorf("%d events", got)
	}
	if most := 64<<10 + 8<<10; w.largest > most {
		t.Errorf("a write of %d bytes, more than %d", w.largest, most)
	}
	if w.flushed() < 6 || !w.deadline.IsZero() {
		t.Errorf("%d flushes, deadline %v", w.flushed(), w.deadline)
	}
}

// logWatcher watches a job's log: each Next returns some of the entries after the cursor.
type logWatcher struct {
	t       *rapid.T
	entries []job.Entry
	cursor  int64
	left    int // the number of updates before the last
}

func (l *logWatcher) Next(context.Context) (engine.Update, error) {
	end := int64(len(l.entries))
	if l.left--; l.left < 0 {
		return engine.Update{Job: new(jobAt(job.Succeeded, end)), Entries: l.entries[l.cursor:]}, nil
	}
	upTo := rapid.Int64Range(l.cursor, end).Draw(l.t, "up to")
	up := engine.Update{Job: new(jobAt(job.Running, upTo)), Entries: l.entries[l.cursor:upTo]}
	if rapid.Bool().Draw(l.t, "behind") {
		up.Job = new(jobAt(job.Succeeded, end)) // the job has more entries than this update
	}
	l.cursor = upTo
	return up, nil
}

func (l *logWatcher) Close() {}

// A stream may be interrupted any number of times, at any event. The events of all its
// connections together are the log: every entry once, in order, with the same id.
func TestInterruptedStreamsJoinToWholeLog(t *testing.T) {
	t.Parallel()
	kinds := []job.Kind{job.KindText, job.KindJSON, job.KindLog, job.KindProgress, job.KindAttempt}
	rapid.Check(t, func(t *rapid.T) {
		var entries []job.Entry
		for i := range rapid.IntRange(0, 12).Draw(t, "entries") {
			entries = append(entries, entry(int64(i+1), rapid.SampledFrom(kinds).Draw(t, "kind"), fmt.Sprintf(`{"n":%d}`, i+1)))
		}
		f := newFake(t)
		f.snap.Job = jobAt(job.Succeeded, int64(len(entries)))
		f.watch = func(after int64) stream.Watcher {
			return &logWatcher{t: t, entries: entries, cursor: after, left: rapid.IntRange(0, 4).Draw(t, "updates")}
		}

		var received []message
		last := ""
		for range 50 {
			w := f.ask("GET", jobPath+"/events", "", "Last-Event-ID", last)
			if w.Code == 204 {
				break
			}
			body := w.Body.String()
			cut := rapid.IntRange(0, len(body)).Draw(t, "cut")
			for _, m := range parseEvents(body[:cut]) {
				last = m.id
				if m.event != "snapshot" {
					received = append(received, m)
				}
			}
			if strings.HasSuffix(last, ".done") {
				break
			}
		}
		checkMessages(t, received, entries, strings.HasSuffix(last, ".done"))
	})
}

func checkMessages(t *rapid.T, received []message, entries []job.Entry, done bool) {
	if done {
		if want := fmt.Sprintf("%d.done", len(entries)); len(received) != len(entries)+1 || received[len(entries)].id != want {
			t.Fatalf("received %s, want %d entries and %s", eventNames(received), len(entries), want)
		}
		received = received[:len(entries)]
	}
	for i, m := range received {
		want := string(appendEntry(nil, &entries[i]))
		if m.data != want || m.id != fmt.Sprint(i+1) || m.event != eventName(entries[i].Kind) {
			t.Fatalf("event %d is %+v, want %s", i, m, want)
		}
		if !json.Valid([]byte(m.data)) {
			t.Fatalf("no JSON: %s", m.data)
		}
	}
}
