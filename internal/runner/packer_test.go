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

// TestPackerKeepsWhatWasSaid says pieces of every kind, cut anywhere, taken at any
// time, and compares the log with what was said.
func TestPackerKeepsWhatWasSaid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := packer{attempt: 3, room: job.MaxOutput, seq: rapid.Int64Range(0, 5).Draw(t, "cursor")}
		l := &log{seq: p.seq}
		for range rapid.IntRange(0, 40).Draw(t, "pieces") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				line := rapid.SampledFrom(ends).Draw(t, "line")
				p.log(line)
				l.others = append(l.others, "log "+valid(line))
			case 1:
				p.event([]byte(`{"a":1}`))
				l.others = append(l.others, `json {"a":1}`)
			case 2:
				p.tell(job.Progress{Percent: rapid.Float64().Draw(t, "percent")})
			case 3, 4:
				l.read(t, p.take(rapid.Bool().Draw(t, "tell")))
			default:
				piece := rapid.SampledFrom(ends).Draw(t, "piece")
				p.text(piece)
				l.said += piece
			}
		}
		p.end()
		l.read(t, p.take(true))
		l.compare(t, &p)
	})
}

// ends are pieces that begin, go on with and end characters, well and badly.
var ends = []string{
	"a", "plain", "", "é", "€", "😀", "\xc3", "\xa9", "\xe2", "\x82", "\xac", "\xe2\x82", "\x82\xac",
	"\xf0", "\xf0\x9f", "\xf0\x9f\x98", "\x80", "\x98\x80", "\xff", "\xc0\x80", "\xed\xa0\x80", "a\xe2", "\xac z", "\x00",
}

// log is what was said and what came of it.
type log struct {
	seq    int64
	said   string   // all text, as it was said
	others []string // everything but text and progress
	text   string   // all text entries, joined
	reads  []string
	bytes  int
	last   job.Progress
}

// read reads a chunk, whose entries are each as they should be.
func (l *log) read(t *rapid.T, c chunk) {
	for i, e := range c.entries {
		if l.seq++; e.Seq != l.seq || e.Attempt != 3 || e.Events != 1 {
			t.Fatalf("entry %+v where %d was next", e, l.seq)
		}
		l.bytes += len(e.Data)
		switch e.Kind {
		case job.Text:
			if !utf8.Valid(e.Data) || len(e.Data) == 0 || len(e.Data) > mostText {
				t.Fatalf("text entry %q", e.Data)
			}
			if i > 0 && c.entries[i-1].Kind == job.Text && len(c.entries[i-1].Data)+len(e.Data) <= mostText {
				t.Fatalf("text entries %d and %d were not joined", e.Seq-1, e.Seq)
			}
			l.text += string(e.Data)
		case job.Report:
			l.report(t, c, i)
		default:
			l.reads = append(l.reads, e.Kind.String()+" "+string(e.Data))
		}
	}
}

// report reads a progress: the last of its chunk, the chunk's own, and no lower
// than the one before.
func (l *log) report(t *rapid.T, c chunk, i int) {
	var p job.Progress
	if err := json.Unmarshal(c.entries[i].Data, &p); err != nil {
		t.Fatal(err)
	}
	if i != len(c.entries)-1 || c.progress == nil || *c.progress != p || p.Percent < l.last.Percent || p.Percent > 100 {
		t.Fatalf("progress %+v after %+v", p, l.last)
	}
	l.last = p
}

func (l *log) compare(t *rapid.T, p *packer) {
	if whole := string([]rune(l.said)); l.text != whole {
		t.Fatalf("%q was said and %q is kept", l.said, l.text)
	}
	if got, want := strings.Join(l.reads, "; "), strings.Join(l.others, "; "); got != want {
		t.Fatalf("%q was said and %q is kept", want, got)
	}
	if p.size() != 0 || job.MaxOutput-p.room != l.bytes {
		t.Fatalf("after all was taken: %d gathered, %d counted, %d read", p.size(), job.MaxOutput-p.room, l.bytes)
	}
}

func TestPackerBounds(t *testing.T) {
	full := func() *packer { return &packer{room: 3} }
	tests := []struct {
		rule string
		say  func(*packer) bool
		fits bool
	}{
		{"text that fits is kept", func(p *packer) bool { return p.text("abc") }, true},
		{"text that does not is refused", func(p *packer) bool { return p.text("abcd") }, false},
		{"U+FFFD counts for what it takes", func(p *packer) bool { return p.text("\xff\xff") }, false},
		{"so it does in a log line", func(p *packer) bool { return p.log("a\xff") }, false},
		{"an event that fits is kept", func(p *packer) bool { return p.event([]byte("123")) }, true},
		{"an event that does not is refused", func(p *packer) bool { return p.event([]byte("1234")) }, false},
		{"so does the note of a new attempt", (*packer).restart, false},
		{"the beginning of a character counts once it is whole", func(p *packer) bool { return p.text("\xf0\x9f\x98") }, true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			p := full()
			want(t, "whether it fits", tt.say(p), tt.fits)
			if !tt.fits && len(p.entries) > 0 {
				t.Fatalf("it was gathered: %v", p.entries)
			}
			p.end()
			if p.room < 0 {
				t.Fatalf("the output has %d bytes too many in the end", -p.room)
			}
		})
	}
}

func TestProgressThatDoesNotFitIsLeftOut(t *testing.T) {
	p := packer{room: 3}
	p.tell(job.Progress{Percent: 1})
	c := p.take(true)
	if len(c.entries) > 0 || c.progress != nil || p.news() {
		t.Fatalf("%+v", c)
	}
	want(t, "whether text still fits", p.text("abc"), true)
}

// A status that changes is news, and so is a whole percent; nothing else is.
func TestWhatIsNewsOfProgress(t *testing.T) {
	p := packer{room: job.MaxOutput}
	for _, tt := range []struct {
		percent float64
		status  string
		news    bool
	}{
		{0, "", false}, {0.9, "", false}, {1, "", true}, {1.9, "", false}, {2.5, "", true}, {2.5, "Working", true}, {2.6, "Working", false},
	} {
		p.tell(job.Progress{Percent: tt.percent, Status: tt.status})
		want(t, fmt.Sprint(tt.percent, " ", tt.status), p.news(), tt.news)
		if tt.news {
			p.take(true)
		}
	}
}

func TestPackerSplitsLongText(t *testing.T) {
	p := packer{room: job.MaxOutput}
	for range 3 {
		p.text(strings.Repeat("é", mostText/4))
	}
	c := p.take(true)
	want(t, "the number of entries", len(c.entries), 2)
	want(t, "the size of the first", len(c.entries[0].Data), mostText)
	want(t, "the size of the second", len(c.entries[1].Data), mostText/2)
}

func TestProgressIsANumberFromZeroToAHundred(t *testing.T) {
	p := packer{room: job.MaxOutput}
	for _, tt := range []struct{ said, kept float64 }{
		{-5, 0}, {math.NaN(), 0}, {math.Inf(-1), 0}, {40, 40}, {math.NaN(), 40}, {30, 40}, {1e9, 100}, {math.Inf(1), 100},
	} {
		p.tell(job.Progress{Percent: tt.said, Status: "at\xff"})
		want(t, "the progress", p.progress, job.Progress{Percent: tt.kept, Status: "at�"})
	}
}

// An attempt has the room of an attempt, or what is left of the job's.
func TestRoomOfAnAttempt(t *testing.T) {
	for said, left := range map[int64]int{0: job.MaxOutput, job.MaxOutput + 5: job.MaxOutput, job.MaxJobOutput - 7: 7, job.MaxJobOutput: 0} {
		want(t, "the room", roomFor(&job.Job{OutputBytes: said}), left)
	}
}

func TestPackerCutsALongStatus(t *testing.T) {
	p := packer{room: job.MaxOutput}
	p.tell(job.Progress{Percent: 1, Status: "x" + strings.Repeat("é", mostStatus)})
	want(t, "the status", p.take(true).progress.Status, "x"+strings.Repeat("é", mostStatus/2-1))
}
