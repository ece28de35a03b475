package runner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// TestAnyOutputIsKept has an executor say anything at any pace to a store that is
// slow and fails at times: the log has all of it, in order and without a gap, and
// the buffer keeps its bound.
func TestAnyOutputIsKept(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { keepsAnything(t, seed) })
		})
	}
}

func keepsAnything(t *testing.T, seed uint64) {
	b := &babbler{rand: rand.New(rand.NewPCG(seed, 1))}
	h := open(t, b.babble)
	store := rand.New(rand.NewPCG(seed, 2))
	h.onAppend = func([]job.Entry) error {
		elapse(time.Duration(store.IntN(100)) * time.Millisecond)
		if store.IntN(4) == 0 {
			return errOutage
		}
		return nil
	}
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Cursor = 5 })
	pass(time.Hour)
	if f := h.ended(rec).Fault; f != nil {
		t.Fatal(f)
	}
	var text strings.Builder
	var others []string
	for _, e := range rec.now().said[1:] { // the first says that an attempt begins
		switch e.Kind {
		case job.Text:
			text.Write(e.Data)
		case job.Report:
		default:
			others = append(others, string(e.Data))
		}
	}
	want(t, "the text", text.String(), string([]rune(b.text.String())))
	want(t, "events and lines", strings.Join(others, "\n"), strings.Join(b.others, "\n"))
	if b.most > mostHeld {
		t.Fatalf("%d bytes were held", b.most)
	}
}

// babbler is an executor that says anything, and remembers it.
type babbler struct {
	rand   *rand.Rand
	text   strings.Builder
	others []string
	most   int // held at once
}

func (b *babbler) babble(_ context.Context, _ exec.Task, out exec.Sink) error {
	for n := range 100 {
		if err := b.say(n, out); err != nil {
			return err
		}
		b.most = max(b.most, out.(*attempt).heldNow())
		if b.rand.IntN(2) == 0 {
			elapse(time.Duration(b.rand.IntN(40)) * time.Millisecond)
		}
	}
	return nil
}

func (b *babbler) say(n int, out exec.Sink) error {
	switch b.rand.IntN(8) {
	case 0:
		b.others = append(b.others, fmt.Sprintf(`{"n":%d}`, n))
		return out.Event([]byte(b.others[len(b.others)-1]))
	case 1:
		b.others = append(b.others, fmt.Sprintf("line %d", n))
		return out.Log(b.others[len(b.others)-1])
	case 2:
		return out.Progress(job.Progress{Percent: float64(n / 2)})
	case 3:
		return b.piece(out, strings.Repeat("é\x9f", b.rand.IntN(40_000)))
	default:
		return b.piece(out, ends[b.rand.IntN(len(ends))])
	}
}

func (b *babbler) piece(out exec.Sink, piece string) error {
	b.text.WriteString(piece)
	return out.Text(piece)
}
