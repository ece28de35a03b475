package runner

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestOutput(t *testing.T) {
	hold(t, []rule{
		{"the first piece is appended at once, what follows every 25 ms", appendsInTime},
		{"a piece after a silence is appended at once", appendsAfterSilence},
		{"a kilobyte does not wait", appendsKilobyte},
		{"pieces that come while an append is out are gathered into the next", gathersMeanwhile},
		{"the last chunk is stored with the end", lastChunkRides},
		{"a second attempt begins by saying so, at once", restarts},
		{"so does a first attempt of a job that has output", restartsAfterRetry},
		{"numbers continue from the job's cursor", continuesNumbers},
		{"kinds keep their order, and text around them is not joined", keepsOrder},
		{"of progress the last before an append is kept, as an entry and as the job's", coalescesProgress},
		{"progress alone is appended every 250 ms at most, the first at once and the last with the end", tellsProgressSlowly},
		{"an attempt that told its progress and succeeds ends at 100 percent", succeedsWhole},
		{"progress goes with the output that is appended anyway, four times a second", progressRides},
		{"an event's buffer may be used again", copiesEvents},
		{"a character that is cut is stored whole, or as U+FFFD when it never is", keepsCharacters},
		{"past its buffer the executor waits until an append is done", waitsForRoom},
		{"an executor that waits is freed by a cancel", cancelFreesWaiter},
		{"output past the job's bound is a final fault", boundsOutput},
		{"output that the store refuses as too large is the same fault", refusedAsTooLarge},
		{"output that the store refuses for another reason is a final fault", refusedOtherwise},
		{"an append that failed is made again, the same, until it is done", appendsAgain},
		{"a finish that failed is made again, the same, until it is done", finishesAgain},
		{"a finish that is refused becomes a failure that says so", refusedFinish},
		{"nothing is tried again once the lease is lost", givesUpWhenLost},
	})
}

func appendsInTime(t *testing.T) {
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		for range 60 {
			_ = out.Text("x")
			elapse(time.Millisecond)
		}
		return busy(ctx, task, out)
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "the first append", show(rec.now().appends[0]), "text x")
	pass(25*time.Millisecond - 1)
	want(t, "appends before the next is due", len(rec.now().appends), 1)
	pass(1)
	want(t, "appends when the next is due", len(rec.now().appends), 2)
	pass(25 * time.Millisecond)
	want(t, "appends when the third is due", len(rec.now().appends), 3)
	pass(time.Second)
	want(t, "all appends", len(rec.now().appends), 4)
	want(t, "the number of pieces", len(strings.ReplaceAll(rec.told(), "; text ", ""))-len("text "), 60)
}

func appendsAfterSilence(t *testing.T) {
	pieces := make(chan string)
	h := open(t, speakAll(pieces))
	rec := h.deliver(1)
	pieces <- "a"
	pass(time.Minute)
	pieces <- "b"
	synctest.Wait()
	want(t, "what was stored at once", rec.told(), "text a; text b")
	close(pieces)
}

func appendsKilobyte(t *testing.T) {
	pieces := make(chan string)
	h := open(t, speakAll(pieces))
	rec := h.deliver(1)
	pieces <- "first"
	synctest.Wait()
	pieces <- strings.Repeat("x", flushAt-1)
	synctest.Wait()
	want(t, "appends with less than a kilobyte", len(rec.now().appends), 1)
	pieces <- "x"
	synctest.Wait()
	want(t, "appends with a kilobyte", len(rec.now().appends), 2)
	close(pieces)
}

// speakAll is an executor that says what the test hands to it, and ends when there
// is no more.
func speakAll(pieces <-chan string) script {
	return func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for piece := range pieces {
			if err := out.Text(piece); err != nil {
				return err
			}
		}
		return nil
	}
}

func gathersMeanwhile(t *testing.T) {
	pieces, disk := make(chan string), make(chan struct{})
	h := open(t, speakAll(pieces))
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1)
	for _, piece := range strings.Split("the quick brown fox", "") {
		pieces <- piece
		pass(time.Second)
	}
	want(t, "appends while the first is out", len(rec.now().appends), 0)
	disk <- struct{}{}
	disk <- struct{}{}
	synctest.Wait()
	want(t, "the number of appends", len(rec.now().appends), 2)
	want(t, "what was said", rec.told(), "text t; text he quick brown fox")
	close(pieces)
}

func lastChunkRides(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		_ = out.Text("first")
		elapse(time.Millisecond)
		_ = out.Text("last")
		_ = out.Progress(job.Progress{Percent: 100, Status: "Complete"})
		return nil
	})
	rec := h.deliver(1)
	pass(time.Second)
	want(t, "the number of appends", len(rec.now().appends), 1)
	o := h.ended(rec)
	want(t, "the last entries", show(o.Entries), `text last; progress {"percent":100,"status":"Complete"}`)
	want(t, "the last progress", *o.Progress, job.Progress{Percent: 100, Status: "Complete"})
}

func restarts(t *testing.T) {
	h := open(t, busy)
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Attempt = 2 })
	synctest.Wait()
	want(t, "what was stored at once", rec.told(), `attempt {"attempt":2}`)
}

func restartsAfterRetry(t *testing.T) {
	pieces := make(chan string)
	h := open(t, speakAll(pieces))
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Cursor = 9 })
	pieces <- "again"
	pass(time.Second)
	want(t, "what was said", rec.told(), `attempt {"attempt":1}; text again`)
	close(pieces)
}

func continuesNumbers(t *testing.T) {
	pieces := make(chan string)
	h := open(t, speakAll(pieces))
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Attempt, c.Job.Cursor = 3, 40 })
	for range 3 {
		pieces <- "x"
		pass(time.Second)
	}
	close(pieces)
	synctest.Wait()
	want(t, "the first number", rec.now().said[0].Seq, 41)
	want(t, "the last number", rec.now().said[3].Seq, 44)
	want(t, "the attempt", rec.now().said[3].Attempt, 3)
}

func keepsOrder(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		_ = out.Text("a")
		_ = out.Event([]byte(`{"b":1}`))
		_ = out.Text("c")
		_ = out.Text("")
		_ = out.Text("d")
		_ = out.Log("")
		_ = out.Log("e\xff")
		_ = out.Event([]byte(`2`))
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	told := strings.Replace(rec.told(), "text c; text d", "text cd", 1) // as the first append fell
	want(t, "what was said", told, `text a; json {"b":1}; text cd; log ; log e�; json 2`)
}

func coalescesProgress(t *testing.T) {
	disk := make(chan struct{})
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		_ = out.Progress(job.Progress{Percent: 10, Status: "Analyzing query"})
		elapse(time.Millisecond)
		_ = out.Progress(job.Progress{Percent: 30})
		_ = out.Progress(job.Progress{Percent: 55})
		_ = out.Progress(job.Progress{Percent: 20, Status: "Generating response"})
		elapse(time.Second)
		_ = out.Progress(job.Progress{Percent: 40, Status: "Generating response"}) // nothing new
		elapse(time.Second)
		return nil
	})
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1)
	pass(10 * time.Millisecond)
	close(disk)
	pass(time.Minute)
	want(t, "the number of reports, the end's included", len(rec.now().reports), 3)
	want(t, "the first report", rec.now().reports[0], job.Progress{Percent: 10, Status: "Analyzing query"})
	want(t, "the second report", rec.now().reports[1], job.Progress{Percent: 55, Status: "Generating response"})
	want(t, "the number of entries", len(rec.now().said), 3)
}

func tellsProgressSlowly(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for i := range 1000 { // in 10 s
			_ = out.Progress(job.Progress{Percent: float64(i) / 10, Status: "Counting"})
			elapse(10 * time.Millisecond)
		}
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "the first report", rec.now().reports[0], job.Progress{Status: "Counting"})
	pass(250*time.Millisecond - 1)
	want(t, "reports before the next is due", len(rec.now().reports), 1)
	pass(1)
	want(t, "reports when the next is due", len(rec.now().reports), 2)
	pass(time.Minute)
	reports := rec.now().reports
	if n := len(reports); n < 38 || n > 42 {
		t.Errorf("%d reports in 10 s", n)
	}
	want(t, "the last progress", reports[len(reports)-1].Percent, 100.0)
}

func succeedsWhole(t *testing.T) {
	fault := &job.Fault{Code: "c", Class: job.Final}
	for _, tt := range []struct {
		says job.Progress
		ends error
		want string
	}{
		{job.Progress{Percent: 55, Status: "Page 3"}, nil, `progress {"percent":55,"status":"Page 3"}; progress {"percent":100}`},
		{job.Progress{Status: "Beginning"}, nil, `progress {"percent":0,"status":"Beginning"}; progress {"percent":100}`},
		{job.Progress{Percent: 100, Status: "Packed"}, nil, `progress {"percent":100,"status":"Packed"}`},
		{job.Progress{}, nil, ``},
		{job.Progress{Percent: 55}, fault, `progress {"percent":55}`},
	} {
		h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
			_ = out.Progress(tt.says)
			elapse(time.Second)
			return tt.ends
		})
		rec := h.deliver(1)
		pass(time.Minute)
		want(t, fmt.Sprintf("what %+v and %v come to", tt.says, tt.ends), rec.told(), tt.want)
	}
}

func progressRides(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for i := range 200 { // in 10 s
			_ = out.Progress(job.Progress{Percent: float64(i) / 2, Status: "Speaking"})
			_ = out.Text("word ")
			elapse(50 * time.Millisecond)
		}
		return nil
	})
	rec := h.deliver(1)
	pass(time.Minute)
	if n := len(rec.now().reports); n < 35 || n > 42 {
		t.Errorf("%d reports in 10 s", n)
	}
	for i, entries := range rec.now().appends {
		if i > 0 && len(entries) == 1 && entries[0].Kind == job.Report {
			t.Fatal("a report was appended alone, while text went out twenty times a second")
		}
	}
}

func copiesEvents(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		buf := []byte("1")
		_ = out.Event(buf)
		buf[0] = '2'
		return out.Event(buf)
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "what was said", rec.told(), "json 1; json 2")
}

func keepsCharacters(t *testing.T) {
	pieces := make(chan string)
	h := open(t, speakAll(pieces))
	rec := h.deliver(1)
	for _, piece := range []string{"5 \xe2", "\x82", "\xac", "\xf0\x9f", "\x98\x80", " \xf0\x9f"} {
		pieces <- piece
		pass(time.Second)
	}
	close(pieces)
	synctest.Wait()
	want(t, "what was said", rec.told(), "text 5 ; text €; text 😀; text  ; text ��")
}

func waitsForRoom(t *testing.T) {
	for size, say := range map[int]func(exec.Sink, string) error{
		1000: exec.Sink.Text,
		3001: exec.Sink.Log,
		1:    exec.Sink.Log,
	} {
		disk := make(chan struct{})
		var held func() int
		h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
			held = out.(*attempt).heldNow
			for range 3000 {
				if err := say(out, strings.Repeat("x", size)); err != nil {
					return err
				}
			}
			return nil
		})
		h.onAppend = func([]job.Entry) error { <-disk; return nil }
		rec := h.deliver(1)
		pass(time.Second)
		if n := held(); n > mostHeld || n < mostHeld*9/10 {
			t.Fatalf("%d bytes are held in pieces of %d while nothing is stored", n, size)
		}
		close(disk)
		pass(time.Second)
		total := 0
		for _, e := range rec.now().said {
			total += len(e.Data)
		}
		want(t, "what was stored in the end", total, 3000*size)
		want(t, "a fault", h.ended(rec).Fault != nil, false)
		_ = h.close()
	}
}

// heldNow is what the attempt has said that is not on disk.
func (a *attempt) heldNow() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.speech.held()
}

func cancelFreesWaiter(t *testing.T) {
	disk := make(chan struct{})
	var got error
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for got == nil {
			got = out.Event(make([]byte, mostHeld))
		}
		return got
	})
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	synctest.Wait()
	wantErr(t, got, exec.ErrCancelled)
	want(t, "waiting for the append that is out", rec.open(), true)
	close(disk)
	synctest.Wait()
	want(t, "cancelled", h.ended(rec).Cancelled, true)
}

func boundsOutput(t *testing.T) {
	for name, speak := range map[string]func(exec.Sink, string) error{
		"text":  func(out exec.Sink, s string) error { return out.Text(s) },
		"event": func(out exec.Sink, s string) error { return out.Event([]byte(s)) },
		"log":   func(out exec.Sink, s string) error { return out.Log(s) },
	} {
		var fits, past, after error
		h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
			fits = out.Text("1234567890")
			past = speak(out, "x")
			after = out.Log("")
			return nil
		})
		rec := h.deliver(1, func(c *job.Claimed) { c.Job.OutputBytes = job.MaxJobOutput - 10 })
		synctest.Wait()
		want(t, "an error within the bound of "+name, fits, nil)
		want(t, "the code past it", job.FaultOf(past).Code, "output_too_large")
		want(t, "an error after it", after != nil, true)
		h.wantFault(rec, job.Final, "output_too_large")
		want(t, "what was said", rec.told(), "text 1234567890")
		_ = h.close()
	}
}

func refusedAsTooLarge(t *testing.T) {
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("too much")
		return busy(ctx, task, out)
	})
	h.onAppend = func([]job.Entry) error { return job.Errorf(job.TooLarge, "that is too much") }
	rec := h.deliver(1)
	synctest.Wait()
	h.wantFault(rec, job.Final, "output_too_large")
	want(t, "entries with the end", len(h.ended(rec).Entries), 0)
}

func refusedOtherwise(t *testing.T) {
	h := open(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("poison")
		elapse(time.Millisecond)
		_ = out.Text("and more")
		return busy(ctx, task, out)
	})
	var tries atomic.Int64
	h.onAppend = func([]job.Entry) error {
		tries.Add(1)
		elapse(time.Second)
		return job.Errorf(job.Invalid, "that cannot be stored")
	}
	rec := h.deliver(1)
	pass(time.Minute)
	h.wantFault(rec, job.Final, "output_refused")
	want(t, "the number of tries", tries.Load(), 1)
	want(t, "entries with the end", len(h.ended(rec).Entries), 0)
}

func appendsAgain(t *testing.T) {
	pieces := make(chan string)
	h := open(t, speakAll(pieces))
	var tried []string
	h.onAppend = func(e []job.Entry) error {
		if tried = append(tried, show(e)); len(tried) < 5 {
			return errOutage
		}
		return nil
	}
	rec := h.deliver(1)
	pieces <- "a"
	synctest.Wait()
	pieces <- "b"
	close(pieces)
	pass(10 * time.Second)
	want(t, "the tries", strings.Join(tried, ", "), "text a, text a, text a, text a, text a")
	want(t, "what was said", rec.told(), "text a; text b")
	want(t, "a fault", h.ended(rec).Fault != nil, false)
}

func finishesAgain(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		out.Result(job.Result{Body: []byte("worth keeping")})
		return nil
	})
	var up atomic.Bool
	h.onFinish = func(o job.Outcome) error {
		want(t, "the result of a try", string(o.Result.Body), "worth keeping")
		if up.Load() {
			return nil
		}
		return errOutage
	}
	rec := h.deliver(1)
	pass(5 * time.Minute)
	want(t, "the end stored", rec.open(), true)
	up.Store(true)
	pass(slowestRetry)
	want(t, "the result", string(h.ended(rec).Result.Body), "worth keeping")
}

func refusedFinish(t *testing.T) {
	h := open(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		out.Result(job.Result{Body: []byte("poison")})
		return nil
	})
	h.onFinish = func(o job.Outcome) error {
		if o.Result != nil {
			return job.Errorf(job.Invalid, "that cannot be stored")
		}
		return nil
	}
	rec := h.deliver(1)
	synctest.Wait()
	h.wantFault(rec, job.Final, "result_refused")
}

func givesUpWhenLost(t *testing.T) {
	h := open(t, nothing)
	h.onFinish = func(job.Outcome) error { return errOutage }
	rec := h.deliver(1)
	pass(10 * time.Second)
	tries := rec.now().tries
	h.order(1, job.OrderLost)
	pass(time.Minute)
	want(t, "tries after the lease was lost", rec.now().tries-tries, 0)
}
