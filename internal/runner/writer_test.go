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
	runRules(t, []rule{
		{"the first piece is appended at once, later pieces every 25 ms", appendsInTime},
		{"a piece after a pause is appended at once", appendsAfterSilence},
		{"a kilobyte does not wait", appendsKilobyte},
		{"pieces written during an append are gathered into the next", gathersDuringAppend},
		{"the last chunk is stored with the outcome", storesLastChunkWithEnd},
		{"a second attempt starts with an attempt entry, at once", marksSecondAttempt},
		{"a first attempt of a job with output starts with an attempt entry", marksAttemptAfterOutput},
		{"sequence numbers continue from the job's cursor", continuesNumbers},
		{"kinds keep their order, and text around them is not joined", keepsOrder},
		{"only the last progress before an append is stored, as an entry and as the job's progress", coalescesProgress},
		{"progress alone is appended at most every 250 ms, the first at once and the last with the outcome", limitsProgressRate},
		{"an attempt that reports progress and succeeds ends at 100 percent", completesProgress},
		{"progress is appended with other output, four times a second", appendsProgressWithOutput},
		{"the executor may reuse an event's buffer", copiesEvents},
		{"a split character is stored whole, or as U+FFFD if its rest never comes", keepsCharacters},
		{"an executor waits while the buffer is full", waitsForSpace},
		{"a cancel unblocks an executor that waits", cancelUnblocksExecutor},
		{"output past the job's limit is a final fault", boundsOutput},
		{"output that the store refuses as too large is the same fault", failsWhenStoreRefusesSize},
		{"output that the store refuses for another reason is a final fault", failsOnOtherRefusal},
		{"an append that failed is repeated unchanged until it succeeds", retriesAppend},
		{"a finish that failed is repeated unchanged until it succeeds", retriesFinish},
		{"a refused outcome becomes a failure with its own code", failsOnRefusedFinish},
		{"no write is repeated once the lease is lost", stopsRetriesWhenLost},
	})
}

func appendsInTime(t *testing.T) {
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		for range 60 {
			_ = out.Text("x")
			sleep(time.Millisecond)
		}
		return blockUntilStopped(ctx, task, out)
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "the first append", formatEntries(rec.snapshot().appends[0]), "text x")
	advance(25*time.Millisecond - 1)
	want(t, "appends before the next is due", len(rec.snapshot().appends), 1)
	advance(1)
	want(t, "appends when the next is due", len(rec.snapshot().appends), 2)
	advance(25 * time.Millisecond)
	want(t, "appends when the third is due", len(rec.snapshot().appends), 3)
	advance(time.Second)
	want(t, "all appends", len(rec.snapshot().appends), 4)
	want(t, "the number of pieces", len(strings.ReplaceAll(rec.log(), "; text ", ""))-len("text "), 60)
}

func appendsAfterSilence(t *testing.T) {
	pieces := make(chan string)
	h := newHarness(t, writePieces(pieces))
	rec := h.deliver(1)
	pieces <- "a"
	advance(time.Minute)
	pieces <- "b"
	synctest.Wait()
	want(t, "what was stored at once", rec.log(), "text a; text b")
	close(pieces)
}

func appendsKilobyte(t *testing.T) {
	pieces := make(chan string)
	h := newHarness(t, writePieces(pieces))
	rec := h.deliver(1)
	pieces <- "first"
	synctest.Wait()
	pieces <- strings.Repeat("x", flushSize-1)
	synctest.Wait()
	want(t, "appends with less than a kilobyte", len(rec.snapshot().appends), 1)
	pieces <- "x"
	synctest.Wait()
	want(t, "appends with a kilobyte", len(rec.snapshot().appends), 2)
	close(pieces)
}

// writePieces returns an executor that writes the pieces it receives and ends when the channel
// is closed.
func writePieces(pieces <-chan string) executorFunc {
	return func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for piece := range pieces {
			if err := out.Text(piece); err != nil {
				return err
			}
		}
		return nil
	}
}

func gathersDuringAppend(t *testing.T) {
	pieces, disk := make(chan string), make(chan struct{})
	h := newHarness(t, writePieces(pieces))
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1)
	for _, piece := range strings.Split("the quick brown fox", "") {
		pieces <- piece
		advance(time.Second)
	}
	want(t, "appends while the first is out", len(rec.snapshot().appends), 0)
	disk <- struct{}{}
	disk <- struct{}{}
	synctest.Wait()
	want(t, "the number of appends", len(rec.snapshot().appends), 2)
	want(t, "the log", rec.log(), "text t; text he quick brown fox")
	close(pieces)
}

func storesLastChunkWithEnd(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		_ = out.Text("first")
		sleep(time.Millisecond)
		_ = out.Text("last")
		_ = out.Progress(job.Progress{Percent: 100, Status: "Complete"})
		return nil
	})
	rec := h.deliver(1)
	advance(time.Second)
	want(t, "the number of appends", len(rec.snapshot().appends), 1)
	o := h.outcome(rec)
	want(t, "the last entries", formatEntries(o.Entries), `text last; progress {"percent":100,"status":"Complete"}`)
	want(t, "the last progress", *o.Progress, job.Progress{Percent: 100, Status: "Complete"})
}

func marksSecondAttempt(t *testing.T) {
	h := newHarness(t, blockUntilStopped)
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Attempt = 2 })
	synctest.Wait()
	want(t, "what was stored at once", rec.log(), `attempt {"attempt":2}`)
}

func marksAttemptAfterOutput(t *testing.T) {
	pieces := make(chan string)
	h := newHarness(t, writePieces(pieces))
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Cursor = 9 })
	pieces <- "again"
	advance(time.Second)
	want(t, "the log", rec.log(), `attempt {"attempt":1}; text again`)
	close(pieces)
}

func continuesNumbers(t *testing.T) {
	pieces := make(chan string)
	h := newHarness(t, writePieces(pieces))
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Attempt, c.Job.Cursor = 3, 40 })
	for range 3 {
		pieces <- "x"
		advance(time.Second)
	}
	close(pieces)
	synctest.Wait()
	want(t, "the first number", rec.snapshot().entries[0].Seq, 41)
	want(t, "the last number", rec.snapshot().entries[3].Seq, 44)
	want(t, "the attempt", rec.snapshot().entries[3].Attempt, 3)
}

func keepsOrder(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
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
	log := strings.Replace(rec.log(), "text c; text d", "text cd", 1) // the first append may fall between them
	want(t, "the log", log, `text a; json {"b":1}; text cd; log ; log e�; json 2`)
}

func coalescesProgress(t *testing.T) {
	disk := make(chan struct{})
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		_ = out.Progress(job.Progress{Percent: 10, Status: "Analyzing query"})
		sleep(time.Millisecond)
		_ = out.Progress(job.Progress{Percent: 30})
		_ = out.Progress(job.Progress{Percent: 55})
		_ = out.Progress(job.Progress{Percent: 20, Status: "Generating response"})
		sleep(time.Second)
		_ = out.Progress(job.Progress{Percent: 40, Status: "Generating response"}) // no change
		sleep(time.Second)
		return nil
	})
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1)
	advance(10 * time.Millisecond)
	close(disk)
	advance(time.Minute)
	want(t, "the number of reports, the end's included", len(rec.snapshot().reports), 3)
	want(t, "the first report", rec.snapshot().reports[0], job.Progress{Percent: 10, Status: "Analyzing query"})
	want(t, "the second report", rec.snapshot().reports[1], job.Progress{Percent: 55, Status: "Generating response"})
	want(t, "the number of entries", len(rec.snapshot().entries), 3)
}

func limitsProgressRate(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for i := range 1000 { // in 10 s
			_ = out.Progress(job.Progress{Percent: float64(i) / 10, Status: "Counting"})
			sleep(10 * time.Millisecond)
		}
		return nil
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "the first report", rec.snapshot().reports[0], job.Progress{Status: "Counting"})
	advance(250*time.Millisecond - 1)
	want(t, "reports before the next is due", len(rec.snapshot().reports), 1)
	advance(1)
	want(t, "reports when the next is due", len(rec.snapshot().reports), 2)
	advance(time.Minute)
	reports := rec.snapshot().reports
	if n := len(reports); n < 38 || n > 42 {
		t.Errorf("%d reports in 10 s", n)
	}
	want(t, "the last progress", reports[len(reports)-1].Percent, 100.0)
}

func completesProgress(t *testing.T) {
	fault := &job.Fault{Code: "c", Class: job.Final}
	for _, tt := range []struct {
		progress job.Progress
		err      error
		want     string
	}{
		{job.Progress{Percent: 55, Status: "Page 3"}, nil, `progress {"percent":55,"status":"Page 3"}; progress {"percent":100}`},
		{job.Progress{Status: "Beginning"}, nil, `progress {"percent":0,"status":"Beginning"}; progress {"percent":100}`},
		{job.Progress{Percent: 100, Status: "Packed"}, nil, `progress {"percent":100,"status":"Packed"}`},
		{job.Progress{}, nil, ``},
		{job.Progress{Percent: 55}, fault, `progress {"percent":55}`},
	} {
		h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
			_ = out.Progress(tt.progress)
			sleep(time.Second)
			return tt.err
		})
		rec := h.deliver(1)
		advance(time.Minute)
		want(t, fmt.Sprintf("the log of %+v and %v", tt.progress, tt.err), rec.log(), tt.want)
	}
}

func appendsProgressWithOutput(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for i := range 200 { // in 10 s
			_ = out.Progress(job.Progress{Percent: float64(i) / 2, Status: "Speaking"})
			_ = out.Text("word ")
			sleep(50 * time.Millisecond)
		}
		return nil
	})
	rec := h.deliver(1)
	advance(time.Minute)
	if n := len(rec.snapshot().reports); n < 35 || n > 42 {
		t.Errorf("%d reports in 10 s", n)
	}
	for i, entries := range rec.snapshot().appends {
		if i > 0 && len(entries) == 1 && entries[0].Kind == job.KindProgress {
			t.Fatal("a report was appended alone, while text went out twenty times a second")
		}
	}
}

func copiesEvents(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		buf := []byte("1")
		_ = out.Event(buf)
		buf[0] = '2'
		return out.Event(buf)
	})
	rec := h.deliver(1)
	synctest.Wait()
	want(t, "the log", rec.log(), "json 1; json 2")
}

func keepsCharacters(t *testing.T) {
	pieces := make(chan string)
	h := newHarness(t, writePieces(pieces))
	rec := h.deliver(1)
	for _, piece := range []string{"5 \xe2", "\x82", "\xac", "\xf0\x9f", "\x98\x80", " \xf0\x9f"} {
		pieces <- piece
		advance(time.Second)
	}
	close(pieces)
	synctest.Wait()
	want(t, "the log", rec.log(), "text 5 ; text €; text 😀; text  ; text ��")
}

func waitsForSpace(t *testing.T) {
	for size, write := range map[int]func(exec.Sink, string) error{
		1000: exec.Sink.Text,
		3001: exec.Sink.Log,
		1:    exec.Sink.Log,
	} {
		disk := make(chan struct{})
		var unsaved func() int
		h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
			unsaved = out.(*attempt).unsavedBytes
			for range 3000 {
				if err := write(out, strings.Repeat("x", size)); err != nil {
					return err
				}
			}
			return nil
		})
		h.onAppend = func([]job.Entry) error { <-disk; return nil }
		rec := h.deliver(1)
		advance(time.Second)
		if n := unsaved(); n > maxUnsaved || n < maxUnsaved*9/10 {
			t.Fatalf("%d bytes are not on disk, in pieces of %d, while nothing is stored", n, size)
		}
		close(disk)
		advance(time.Second)
		total := 0
		for _, e := range rec.snapshot().entries {
			total += len(e.Data)
		}
		want(t, "what was stored in the end", total, 3000*size)
		want(t, "a fault", h.outcome(rec).Fault != nil, false)
		_ = h.close()
	}
}

// unsavedBytes returns the size of the output that is not on disk.
func (a *attempt) unsavedBytes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writer.unsaved()
}

func cancelUnblocksExecutor(t *testing.T) {
	disk := make(chan struct{})
	var got error
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
		for got == nil {
			got = out.Event(make([]byte, maxUnsaved))
		}
		return got
	})
	h.onAppend = func([]job.Entry) error { <-disk; return nil }
	rec := h.deliver(1)
	synctest.Wait()
	h.order(1, job.OrderCancel)
	synctest.Wait()
	wantErr(t, got, exec.ErrCancelled)
	want(t, "waiting for the append that is out", rec.running(), true)
	close(disk)
	synctest.Wait()
	want(t, "cancelled", h.outcome(rec).Cancelled, true)
}

func boundsOutput(t *testing.T) {
	for name, write := range map[string]func(exec.Sink, string) error{
		"text":  func(out exec.Sink, s string) error { return out.Text(s) },
		"event": func(out exec.Sink, s string) error { return out.Event([]byte(s)) },
		"log":   func(out exec.Sink, s string) error { return out.Log(s) },
	} {
		var fits, past, after error
		h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
			fits = out.Text("1234567890")
			past = write(out, "x")
			after = out.Log("")
			return nil
		})
		rec := h.deliver(1, func(c *job.Claimed) { c.Job.OutputBytes = job.MaxJobOutput - 10 })
		synctest.Wait()
		want(t, "an error within the bound of "+name, fits, nil)
		want(t, "the code past it", job.FaultOf(past).Code, "output_too_large")
		want(t, "an error after it", after != nil, true)
		h.wantFault(rec, job.Final, "output_too_large")
		want(t, "the log", rec.log(), "text 1234567890")
		_ = h.close()
	}
}

func failsWhenStoreRefusesSize(t *testing.T) {
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("too much")
		return blockUntilStopped(ctx, task, out)
	})
	h.onAppend = func([]job.Entry) error { return job.Errorf(job.TooLarge, "that is too much") }
	rec := h.deliver(1)
	synctest.Wait()
	h.wantFault(rec, job.Final, "output_too_large")
	want(t, "entries with the end", len(h.outcome(rec).Entries), 0)
}

func failsOnOtherRefusal(t *testing.T) {
	h := newHarness(t, func(ctx context.Context, task exec.Task, out exec.Sink) error {
		_ = out.Text("poison")
		sleep(time.Millisecond)
		_ = out.Text("and more")
		return blockUntilStopped(ctx, task, out)
	})
	var tries atomic.Int64
	h.onAppend = func([]job.Entry) error {
		tries.Add(1)
		sleep(time.Second)
		return job.Errorf(job.Invalid, "that cannot be stored")
	}
	rec := h.deliver(1)
	advance(time.Minute)
	h.wantFault(rec, job.Final, "output_refused")
	want(t, "the number of tries", tries.Load(), 1)
	want(t, "entries with the end", len(h.outcome(rec).Entries), 0)
}

func retriesAppend(t *testing.T) {
	pieces := make(chan string)
	h := newHarness(t, writePieces(pieces))
	var tried []string
	h.onAppend = func(e []job.Entry) error {
		if tried = append(tried, formatEntries(e)); len(tried) < 5 {
			return errOutage
		}
		return nil
	}
	rec := h.deliver(1)
	pieces <- "a"
	synctest.Wait()
	pieces <- "b"
	close(pieces)
	advance(10 * time.Second)
	want(t, "the tries", strings.Join(tried, ", "), "text a, text a, text a, text a, text a")
	want(t, "the log", rec.log(), "text a; text b")
	want(t, "a fault", h.outcome(rec).Fault != nil, false)
}

func retriesFinish(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
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
	advance(5 * time.Minute)
	want(t, "the end stored", rec.running(), true)
	up.Store(true)
	advance(maxRetryDelay)
	want(t, "the result", string(h.outcome(rec).Result.Body), "worth keeping")
}

func failsOnRefusedFinish(t *testing.T) {
	h := newHarness(t, func(_ context.Context, _ exec.Task, out exec.Sink) error {
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

func stopsRetriesWhenLost(t *testing.T) {
	h := newHarness(t, returnNil)
	h.onFinish = func(job.Outcome) error { return errOutage }
	rec := h.deliver(1)
	advance(10 * time.Second)
	tries := rec.snapshot().finishes
	h.order(1, job.OrderLost)
	advance(time.Minute)
	want(t, "tries after the lease was lost", rec.snapshot().finishes-tries, 0)
}
