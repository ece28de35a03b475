package storetest

import (
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func textRules() []rule {
	return []rule{
		{"the text is the output of the last attempt so far", textSoFar},
		{"the text is of text entries alone", textOnly},
		{"the text is cut at its limit and never inside a character", textCut},
		{"a new attempt without output has no text", textOfSilent},
		{"the text of a job without output is empty", textEmpty},
	}
}

func (w *harness) text(id job.ID, limit int) string {
	w.Helper()
	_, text, err := w.store.Text(w.ctx, mine, id, limit)
	if err != nil {
		w.Fatalf("text: %v", err)
	}
	return text
}

func textSoFar(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "the ", "first"))
	wantEqual(w, "the text", w.text(c.Job.ID, 100), "the first")
	w.do(newFinish(c.Lease(), job.Queued))
	wantEqual(w, "the text of a waiting job", w.text(c.Job.ID, 100), "the first")
	c = w.claimOne(queue)
	w.do(newAttempt(c.Lease(), 2, 2, "the ", "second"))
	wantEqual(w, "the text", w.text(c.Job.ID, 100), "the second")
	w.do(newFinish(c.Lease(), job.Succeeded))
	wantEqual(w, "the text of an ended job", w.text(c.Job.ID, 100), "the second")
}

func textOnly(w *harness) {
	c := w.running()
	a := newAppend(c.Lease(), 1, 0, "one ", "log", "{}", "", "two")
	a.Entries[1].Kind, a.Entries[2].Kind = job.KindLog, job.KindJSON
	w.do(a)
	wantEqual(w, "the text", w.text(c.Job.ID, 100), "one two")
}

func textCut(w *harness) {
	whole := strings.Repeat("aé🫖漢", 20)
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, whole[:33], whole[33:]))
	for limit := range len(whole) + 5 {
		got := w.text(c.Job.ID, limit)
		if len(got) > limit || !strings.HasPrefix(whole, got) || !utf8.ValidString(got) || len(got) < min(limit, len(whole))-3 {
			w.Errorf("up to %d bytes the text is %q", limit, got)
		}
	}
}

func textOfSilent(w *harness) {
	c := w.running()
	w.do(newAppend(c.Lease(), 1, 0, "text"), newFinish(c.Lease(), job.Queued))
	c = w.claimOne(queue)
	w.do(newAttempt(c.Lease(), 2, 1))
	wantEqual(w, "the text", w.text(c.Job.ID, 100), "")
}

func textEmpty(w *harness) {
	for _, state := range reachable() {
		id, _ := w.inState(state)
		wantEqual(w, "the text", w.text(id, 100), "")
	}
}
