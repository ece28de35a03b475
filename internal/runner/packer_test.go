package runner

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// TestPackerKeepsEveryPiece adds pieces of every kind, cut at random places and taken at random
// times, and compares the entries with them.
func TestPackerKeepsEveryPiece(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := packer{attempt: 3, remaining: job.MaxOutput, seq: rapid.Int64Range(0, 5).Draw(t, "cursor")}
		l := &outputLog{seq: p.seq}
		for range rapid.IntRange(0, 40).Draw(t, "pieces") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				line := rapid.SampledFrom(runePieces).Draw(t, "line")
				p.addLog(line)
				l.others = append(l.others, "log "+replaceInvalid(line))
			case 1:
				p.addEvent([]byte(`{"a":1}`))
				l.others = append(l.others, `json {"a":1}`)
			case 2:
				p.setProgress(job.Progress{Percent: rapid.Float64().Draw(t, "percent")})
			case 3, 4:
				l.read(t, p.take(rapid.Bool().Draw(t, "tell")))
			default:
				piece := rapid.SampledFrom(runePieces).Draw(t, "piece")
				p.addText(piece)
				l.input += piece
			}
		}
		p.flushPartial()
		l.read(t, p.take(true))
		l.compare(t, &p)
	})
}

// runePieces start, continue and end characters, in valid and invalid ways.
var runePieces = []string{
	"a", "plain", "", "é", "€", "😀", "\xc3", "\xa9", "\xe2", "\x82", "\xac", "\xe2\x82", "\x82\xac",
	"\xf0", "\xf0\x9f", "\xf0\x9f\x98", "\x80", "\x98\x80", "\xff", "\xc0\x80", "\xed\xa0\x80", "a\xe2", "\xac z", "\x00",
}

// outputLog compares the added pieces with the taken entries.
type outputLog struct {
	seq          int64
	input        string   // all text, as it was added
	others       []string // everything but text and progress
	storedText   string   // all text entries, joined
	storedOthers []string
	storedBytes  int
	lastProgress job.Progress
}

// read checks the entries of a chunk.
func (l *outputLog) read(t *rapid.T, c chunk) {
	for i, e := range c.entries {
		if l.seq++; e.Seq != l.seq || e.Attempt != 3 || e.Events != 1 {
			t.Fatalf("entry %+v where %d was next", e, l.seq)
		}
		l.storedBytes += len(e.Data)
		switch e.Kind {
		case job.KindText:
			if !utf8.Valid(e.Data) || len(e.Data) == 0 || len(e.Data) > maxTextEntry {
				t.Fatalf("text entry %q", e.Data)
			}
			if i > 0 && c.entries[i-1].Kind == job.KindText && len(c.entries[i-1].Data)+len(e.Data) <= maxTextEntry {
				t.Fatalf("text entries %d and %d were not joined", e.Seq-1, e.Seq)
			}
			l.storedText += string(e.Data)
		case job.KindProgress:
			l.readProgress(t, c, i)
		default:
			l.storedOthers = append(l.storedOthers, e.Kind.String()+" "+string(e.Data))
		}
	}
}

// readProgress checks a progress entry: it is the last of its chunk, equals the chunk's
// progress, and is at least the previous one.
func (l *outputLog) readProgress(t *rapid.T, c chunk, i int) {
	var p job.Progress
	if err := json.Unmarshal(c.entries[i].Data, &p); err != nil {
		t.Fatal(err)
	}
	if i != len(c.entries)-1 || c.progress == nil || *c.progress != p || p.Percent < l.lastProgress.Percent || p.Percent > 100 {
		t.Fatalf("progress %+v after %+v", p, l.lastProgress)
	}
	l.lastProgress = p
}

func (l *outputLog) compare(t *rapid.T, p *packer) {
	if whole := string([]rune(l.input)); l.storedText != whole {
		t.Fatalf("%q was added and %q was stored", l.input, l.storedText)
	}
	if got, want := strings.Join(l.storedOthers, "; "), strings.Join(l.others, "; "); got != want {
		t.Fatalf("%q was added and %q was stored", want, got)
	}
	if p.bufferedSize() != 0 || job.MaxOutput-p.remaining != l.storedBytes {
		t.Fatalf("after the last take: %d gathered, %d counted, %d read", p.bufferedSize(), job.MaxOutput-p.remaining, l.storedBytes)
	}
}

func TestPackerBounds(t *testing.T) {
	t.Parallel()
	full := func() *packer { return &packer{remaining: 3} }
	tests := []struct {
		rule string
		add  func(*packer) bool
		fits bool
	}{
		{"text that fits is kept", func(p *packer) bool { return p.addText("abc") }, true},
		{"text that does not fit is refused", func(p *packer) bool { return p.addText("abcd") }, false},
		{"U+FFFD in text counts for three bytes", func(p *packer) bool { return p.addText("\xff\xff") }, false},
		{"U+FFFD in a log line counts for three bytes", func(p *packer) bool { return p.addLog("a\xff") }, false},
		{"an event that fits is kept", func(p *packer) bool { return p.addEvent([]byte("123")) }, true},
		{"an event that does not fit is refused", func(p *packer) bool { return p.addEvent([]byte("1234")) }, false},
		{"an attempt entry that does not fit is refused", (*packer).addAttempt, false},
		{"the beginning of a character counts once it is whole", func(p *packer) bool { return p.addText("\xf0\x9f\x98") }, true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			p := full()
			want(t, "whether it fits", tt.add(p), tt.fits)
			if !tt.fits && len(p.entries) > 0 {
				t.Fatalf("it was gathered: %v", p.entries)
			}
			p.flushPartial()
			if p.remaining < 0 {
				t.Fatalf("the output exceeds its limit by %d bytes", -p.remaining)
			}
		})
	}
}

func TestPackerDropsProgressPastTheLimit(t *testing.T) {
	t.Parallel()
	p := packer{remaining: 3}
	p.setProgress(job.Progress{Percent: 1})
	c := p.take(true)
	if len(c.entries) > 0 || c.progress != nil || p.progressChanged() {
		t.Fatalf("%+v", c)
	}
	want(t, "whether text still fits", p.addText("abc"), true)
}

// A new status causes a report, and so does an increase by one percent.
func TestPackerReportsProgressChanges(t *testing.T) {
	t.Parallel()
	p := packer{remaining: job.MaxOutput}
	for _, tt := range []struct {
		percent float64
		status  string
		changed bool
	}{
		{0, "", false}, {0.9, "", false}, {1, "", true}, {1.9, "", false}, {2.5, "", true}, {2.5, "Working", true}, {2.6, "Working", false},
	} {
		p.setProgress(job.Progress{Percent: tt.percent, Status: tt.status})
		want(t, fmt.Sprint(tt.percent, " ", tt.status), p.progressChanged(), tt.changed)
		if tt.changed {
			p.take(true)
		}
	}
}

func TestPackerSplitsLongText(t *testing.T) {
	t.Parallel()
	p := packer{remaining: job.MaxOutput}
	for range 3 {
		p.addText(strings.Repeat("é", maxTextEntry/4))
	}
	c := p.take(true)
	want(t, "the number of entries", len(c.entries), 2)
	want(t, "the size of the first", len(c.entries[0].Data), maxTextEntry)
	want(t, "the size of the second", len(c.entries[1].Data), maxTextEntry/2)
}

func TestPackerClampsProgress(t *testing.T) {
	t.Parallel()
	p := packer{remaining: job.MaxOutput}
	for _, tt := range []struct{ set, want float64 }{
		{-5, 0}, {math.NaN(), 0}, {math.Inf(-1), 0}, {40, 40}, {math.NaN(), 40}, {30, 40}, {1e9, 100}, {math.Inf(1), 100},
	} {
		p.setProgress(job.Progress{Percent: tt.set, Status: "at\xff"})
		want(t, "the progress", p.progress, job.Progress{Percent: tt.want, Status: "at�"})
	}
}

// An attempt may write up to its own limit, and up to the rest of the job's limit.
func TestOutputLimitOfAnAttempt(t *testing.T) {
	t.Parallel()
	for written, left := range map[int64]int{0: job.MaxOutput, job.MaxOutput + 5: job.MaxOutput, job.MaxJobOutput - 7: 7, job.MaxJobOutput: 0} {
		want(t, "the limit", outputLimit(&job.Job{OutputBytes: written}), left)
	}
}

func TestPackerCutsALongStatus(t *testing.T) {
	t.Parallel()
	p := packer{remaining: job.MaxOutput}
	p.setProgress(job.Progress{Percent: 1, Status: "x" + strings.Repeat("é", maxStatus)})
	want(t, "the status", p.take(true).progress.Status, "x"+strings.Repeat("é", maxStatus/2-1))
}
