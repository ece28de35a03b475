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

// TestOutputKeepsEveryPiece writes random output at random times to a store that is slow and
// sometimes fails. The log must have all output, in order and without a gap, and the buffer must
// not exceed its limit.
func TestOutputKeepsEveryPiece(t *testing.T) {
	t.Parallel()
	seeds := uint64(25)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { checkRandomOutput(t, seed) })
		})
	}
}

func checkRandomOutput(t *testing.T, seed uint64) {
	b := &randomOutput{rand: rand.New(rand.NewPCG(seed, 1))}
	h := newHarness(t, b.execute)
	store := rand.New(rand.NewPCG(seed, 2))
	h.onAppend = func([]job.Entry) error {
		sleep(time.Duration(store.IntN(100)) * time.Millisecond)
		if store.IntN(4) == 0 {
			return errOutage
		}
		return nil
	}
	rec := h.deliver(1, func(c *job.Claimed) { c.Job.Cursor = 5 })
	advance(time.Hour)
	if f := h.outcome(rec).Fault; f != nil {
		t.Fatal(f)
	}
	var text strings.Builder
	var others []string
	for _, e := range rec.snapshot().entries[1:] { // the first entry marks the attempt
		switch e.Kind {
		case job.KindText:
			text.Write(e.Data)
		case job.KindProgress:
		default:
			others = append(others, string(e.Data))
		}
	}
	want(t, "the text", text.String(), string([]rune(b.text.String())))
	want(t, "events and lines", strings.Join(others, "\n"), strings.Join(b.others, "\n"))
	if b.maxUnsaved > maxUnsaved {
		t.Fatalf("%d bytes were not on disk", b.maxUnsaved)
	}
}

// randomOutput is an executor that writes random output and records it.
type randomOutput struct {
	rand       *rand.Rand
	text       strings.Builder
	others     []string
	maxUnsaved int // maximum number of bytes that were not on disk at one time
}

func (b *randomOutput) execute(_ context.Context, _ exec.Task, out exec.Sink) error {
	for n := range 100 {
		if err := b.writeOne(n, out); err != nil {
			return err
		}
		b.maxUnsaved = max(b.maxUnsaved, out.(*attempt).unsavedBytes())
		if b.rand.IntN(2) == 0 {
			sleep(time.Duration(b.rand.IntN(40)) * time.Millisecond)
		}
	}
	return nil
}

func (b *randomOutput) writeOne(n int, out exec.Sink) error {
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
		return b.writeText(out, strings.Repeat("é\x9f", b.rand.IntN(40_000)))
	default:
		return b.writeText(out, runePieces[b.rand.IntN(len(runePieces))])
	}
}

func (b *randomOutput) writeText(out exec.Sink, piece string) error {
	b.text.WriteString(piece)
	return out.Text(piece)
}
