package storetest

import (
	"bytes"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func outputRules() []rule {
	return []rule{
		{"entries are read back as they were appended", outputKept},
		{"entries of any bytes are kept, also an empty one", outputBytes},
		{"numbers go on without a gap across attempts", outputAcrossAttempts},
		{"an append that leaves a gap or overlaps is refused", outputGaps},
		{"an append may be repeated", outputAgain},
		{"a repeated append does not set the progress back", outputAgainProgress},
		{"an entry never changes", outputNeverChanges},
		{"entries that an earlier lease wrote are not repeated by this lease", outputOfEarlierLease},
		{"appends of one batch continue each other", outputInOneBatch},
		{"a finish carries the last entries", outputWithFinish},
		{"a finish whose entries do not continue the log is refused", outputWithFinishGap},
		{"the last reported progress is kept", outputProgress},
		{"output is read from after a cursor, up to a size but at least one entry", outputPages},
		{"a job without output has an empty log", outputEmpty},
	}
}

func outputKept(w *harness) {
	c := w.running()
	entries := []job.Entry{
		{Seq: 1, Attempt: 1, Kind: job.KindAttempt, Events: 1, Data: []byte("{}")},
		{Seq: 2, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("some text")},
		{Seq: 3, Attempt: 1, Kind: job.KindJSON, Events: 4, Data: []byte(`{"a": [1,2]}`)},
		{Seq: 4, Attempt: 1, Kind: job.KindLog, Events: 1, Data: []byte("a line")},
		{Seq: 5, Attempt: 1, Kind: job.KindProgress, Events: 1, Data: []byte(`{"percent":5}`)},
	}
	w.do(&store.Append{Lease: c.Lease(), Entries: entries})
	got := w.output(c.Job.ID, 0)
	wantEqual(w, "the output", entryTexts(got), entryTexts(entries))
	wantEqual(w, "the cursor", w.job(c.Job.ID).Cursor, 5)
	wantEqual(w, "the output bytes", w.job(c.Job.ID).OutputBytes, 2+9+12+6+13)
}

func outputBytes(w *harness) {
	c := w.running()
	texts := []string{"", "\x00", "\xff\xfe\x80", string(bytes.Repeat([]byte{7}, 1<<20)), "é"}
	w.do(newAppend(c.Lease(), 1, 0, texts...))
	for i, want := range texts {
		_, entries, err := w.store.Output(w.ctx, mine, c.Job.ID, int64(i), 1)
		if err != nil || len(entries) == 0 || string(entries[0].Data) != want {
			w.Errorf("entry %d of %d bytes was not read back: %v", i+1, len(want), err)
		}
	}
}

func outputAcrossAttempts(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"), newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	wantEqual(w, "the cursor in the second attempt", c.Job.Cursor, 2)
	w.do(newAppend(c.Lease(), 2, 2, "c"))
	w.do(newFinish(c.Lease(), job.Failed), newRetry(c.Job.ID))
	c = w.claimOne(queue)
	wantEqual(w, "the cursor in the retry", c.Job.Cursor, 3)
	w.do(newAppend(c.Lease(), 1, 3, "d"), newFinish(c.Lease(), job.Succeeded))

	wantEqual(w, "all output", w.textOf(c.Job.ID), "abcd")
	for i, e := range w.output(c.Job.ID, 0) {
		wantEqual(w, "the number", e.Seq, int64(i+1))
		wantEqual(w, "the attempt", e.Attempt, []int{1, 1, 2, 1}[i])
	}
	wantEqual(w, "the output bytes", w.job(c.Job.ID).OutputBytes, 4)
}

func outputGaps(w *harness) {
	c := w.running()
	w.mustRefuse(job.Conflict, newAppend(c.Lease(), 1, 1, "gap"))
	w.do(newAppend(c.Lease(), 1, 0, "a", "b", "c"))
	w.mustRefuse(job.Conflict,
		newAppend(c.Lease(), 1, 4, "gap"),
		newAppend(c.Lease(), 1, 2, "c", "overlap"),
		newAppend(c.Lease(), 1, 1, "b", "c", "overlap"),
	)
	torn := newAppend(c.Lease(), 1, 3, "d", "e")
	torn.Entries[1].Seq = 6
	w.mustRefuse(job.Conflict, torn)
	w.do(newAppend(c.Lease(), 1, 3, "d"))
	wantEqual(w, "all output", w.textOf(c.Job.ID), "abcd")
}

func outputAgain(w *harness) {
	c := w.running()
	first, second := newAppend(c.Lease(), 1, 0, "a", "b"), newAppend(c.Lease(), 1, 2, "c")
	w.do(first)
	w.do(second)
	before := w.stored()
	w.do(freshOp(second))
	w.do(freshOp(first))
	w.do(newAppend(c.Lease(), 1, 1, "b"))
	w.sameStored("an append sent again changed the store", before, w.stored())
	w.do(newAppend(c.Lease(), 1, 3, "d"))
	wantEqual(w, "all output", w.textOf(c.Job.ID), "abcd")
}

func outputAgainProgress(w *harness) {
	c := w.running()
	first, second := newAppend(c.Lease(), 1, 0, "a"), newAppend(c.Lease(), 1, 1, "b")
	first.Progress, second.Progress = &job.Progress{Percent: 10}, &job.Progress{Percent: 20}
	w.do(first)
	w.do(second)
	w.do(freshOp(first))
	wantEqual(w, "the progress", w.job(c.Job.ID).Progress, *second.Progress)
}

func outputNeverChanges(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"))
	before := w.stored()
	w.try(newAppend(c.Lease(), 1, 0, "other", "words"))
	w.sameStored("an entry changed", before, w.stored())
}

func outputOfEarlierLease(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "a", "b"), newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	w.mustRefuse(job.Conflict, newAppend(c.Lease(), 2, 0, "a", "b"), newAppend(c.Lease(), 2, 1, "b"))
	w.do(newAppend(c.Lease(), 2, 2, "c"))
	w.mustRefuse(job.Conflict, newAppend(c.Lease(), 2, 1, "b", "c"))
	wantEqual(w, "all output", w.textOf(c.Job.ID), "abc")
}

func outputInOneBatch(w *harness) {
	a, b := w.running(), w.running()
	w.do(
		newAppend(a.Lease(), 1, 0, "a1"), newAppend(b.Lease(), 1, 0, "b1", "b2"),
		newAppend(a.Lease(), 1, 1, "a2"), newAppend(b.Lease(), 1, 2, "b3"),
	)
	wantEqual(w, "the output of the first", w.textOf(a.Job.ID), "a1a2")
	wantEqual(w, "the output of the second", w.textOf(b.Job.ID), "b1b2b3")
}

func outputWithFinish(w *harness) {
	for _, to := range []job.State{job.Succeeded, job.Failed, job.Cancelled, job.Scheduled, job.Queued} {
		c := w.running()
		w.do(newAppend(c.Lease(), 1, 0, "a"))
		f := newFinish(c.Lease(), to)
		f.Entries = textEntries(1, 2, "c", "d")
		f.Progress = &job.Progress{Percent: 99, Status: "Nearly"}
		w.do(newAppend(c.Lease(), 1, 1, "b"), f)
		wantEqual(w, "all output of the "+to.String(), w.textOf(c.Job.ID), "abcd")
		j := w.job(c.Job.ID)
		wantEqual(w, "the cursor", j.Cursor, 4)
		wantEqual(w, "the output bytes", j.OutputBytes, 4)
		wantEqual(w, "the progress", j.Progress, *f.Progress)
		w.do(newDelete(j.ID))
	}
}

func outputWithFinishGap(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "a"))
	for _, after := range []int64{0, 2} {
		f := newFinish(c.Lease(), job.Succeeded)
		f.Entries = textEntries(1, after, "x", "y")
		w.mustRefuse(job.Conflict, f)
	}
	w.do(newFinish(c.Lease(), job.Succeeded))
	wantEqual(w, "all output", w.textOf(c.Job.ID), "a")
}

func outputProgress(w *harness) {
	c := w.running()
	for i, p := range []job.Progress{{Percent: 10, Status: "Begun"}, {Percent: 12.5}, {Percent: 100, Status: "Done"}} {
		output := newAppend(c.Lease(), 1, int64(2*i), "a")
		output.Progress = &p
		w.do(output)
		wantEqual(w, "the progress", w.job(c.Job.ID).Progress, p)
		w.do(newAppend(c.Lease(), 1, int64(2*i+1), "nothing of progress"))
		wantEqual(w, "the progress", w.job(c.Job.ID).Progress, p)
	}
}

func outputPages(w *harness) {
	c := w.running()
	for i := range 10 {
		w.do(newAppend(c.Lease(), 1, int64(i*2), "0123456789", "9876543210"))
	}
	for _, size := range []int{0, 1, 10, 55, 1000} {
		var seq int64
		for pages := 0; seq < 20; pages++ {
			j, entries, err := w.store.Output(w.ctx, mine, c.Job.ID, seq, size)
			if err != nil || len(entries) == 0 || pages > 20 {
				w.Fatalf("output after %d, up to %d bytes: %d entries, %v", seq, size, len(entries), err)
			}
			wantEqual(w, "the job read with its output", text(j), text(w.job(j.ID)))
			if most := max(size/10, 1) + 1; len(entries) > most {
				w.Errorf("up to %d bytes there are %d entries of 10", size, len(entries))
			}
			for _, e := range entries {
				seq++
				wantEqual(w, "the number", e.Seq, seq)
			}
		}
	}
	wantEqual(w, "the entries after the last", len(w.output(c.Job.ID, 20)), 0)
	wantEqual(w, "the entries far after the last", len(w.output(c.Job.ID, 1<<40)), 0)
}

func outputEmpty(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		wantEqual(w, "the entries", len(w.output(id, 0)), 0)
		wantEqual(w, "the cursor", w.job(id).Cursor, 0)
	}
}
