package runner

import (
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	mostText   = 64 << 10 // bytes of a text entry
	mostStatus = 4 << 10  // bytes of a progress report's status; the rest is cut off
	entryCost  = 128      // what an entry counts for beside its data
)

// packer gathers pieces into entries: text is joined, of progress only the last
// before it is taken is kept, everything else is an entry of its own. It has
// neither lock nor clock.
//
// Text is UTF-8 in the end, whatever was said: a piece that ends inside a
// character is held back until the rest has come, and every byte that is part of
// no character becomes U+FFFD, so that the text does not depend on how it was cut.
//
// Its methods that gather answer false, and gather nothing, when the job's output
// would pass a bound. Progress that would is left out: it is no reason to fail.
type packer struct {
	attempt int
	seq     int64 // of the last entry gathered
	room    int   // bytes that the attempt may yet say

	entries []job.Entry
	bytes   int    // of the data of entries
	cut     string // the beginning of a character

	progress job.Progress // the last that was said in this attempt
	reported job.Progress // the last that was taken
}

// chunk is what one append stores.
type chunk struct {
	entries  []job.Entry
	progress *job.Progress
	size     int // what it counted for
}

// restart says that what earlier attempts said is superseded.
func (p *packer) restart() bool {
	data, _ := json.Marshal(struct {
		Attempt int `json:"attempt"`
	}{p.attempt})
	return p.add(job.Restart, data)
}

// text joins a piece to the text before it.
func (p *packer) text(piece string) bool {
	if p.cut != "" {
		piece = p.cut + piece
	}
	whole := len(piece) - beginning(piece)
	text := valid(piece[:whole])
	if !p.fits(len(text)) {
		return false
	}
	p.cut = strings.Clone(piece[whole:])
	p.join(text)
	return true
}

// join adds whole characters to the last entry, if that is a text with room.
func (p *packer) join(text string) {
	if text == "" {
		return
	}
	if last := len(p.entries) - 1; last >= 0 {
		e := &p.entries[last]
		if e.Kind == job.Text && len(e.Data)+len(text) <= mostText {
			e.Data = append(e.Data, text...)
			p.count(len(text))
			return
		}
	}
	p.add(job.Text, []byte(text))
}

// event adds a copy of a JSON value as an entry.
func (p *packer) event(value []byte) bool {
	return p.fits(len(value)) && p.add(job.JSON, append([]byte{}, value...))
}

// log adds a line as an entry.
func (p *packer) log(line string) bool {
	return p.fits(len(line)) && p.add(job.Log, []byte(valid(line)))
}

// add makes an entry of data, which is the packer's from then on.
func (p *packer) add(kind job.Kind, data []byte) bool {
	if !p.fits(len(data)) {
		return false
	}
	p.seq++
	p.entries = append(p.entries, job.Entry{Seq: p.seq, Attempt: p.attempt, Kind: kind, Events: 1, Data: data})
	p.count(len(data))
	return true
}

// tell replaces the progress that is gathered. Percent never falls.
func (p *packer) tell(progress job.Progress) {
	progress.Percent = min(max(progress.Percent, p.progress.Percent), 100)
	if math.IsNaN(progress.Percent) {
		progress.Percent = p.progress.Percent
	}
	if len(progress.Status) > mostStatus {
		progress.Status = progress.Status[:mostStatus-beginning(progress.Status[:mostStatus])]
	}
	progress.Status = valid(progress.Status)
	p.progress = progress
}

// complete brings the progress of an attempt that told some to its end. What it said
// that it was doing on the way there, it does no more.
func (p *packer) complete() {
	if p.progress != (job.Progress{}) && p.progress.Percent < 100 {
		p.progress = job.Progress{Percent: 100}
	}
}

// news says that the progress is worth a write of its own: another status, or a
// whole percent more.
func (p *packer) news() bool {
	return p.progress.Status != p.reported.Status || p.progress.Percent >= p.reported.Percent+1
}

// end says that no piece will follow: the beginning of a character stays one.
func (p *packer) end() {
	text := valid(p.cut)
	p.cut = ""
	if p.fits(len(text)) {
		p.join(text)
	}
}

// take hands over what is gathered, with the progress if it is to be told.
func (p *packer) take(tell bool) chunk {
	c := chunk{size: p.size()}
	if tell && p.progress != p.reported {
		c.progress = p.report()
	}
	c.entries = p.entries
	p.entries, p.bytes = nil, 0
	return c
}

// report adds the progress as an entry; nil when it does not fit.
func (p *packer) report() *job.Progress {
	p.reported = p.progress
	data, _ := json.Marshal(p.progress) // cannot fail: a finite number and a text
	if !p.add(job.Report, data) {
		return nil
	}
	progress := p.progress
	return &progress
}

// size is what the gathered entries take of the buffer's bound.
func (p *packer) size() int { return p.bytes + entryCost*len(p.entries) }

func (p *packer) fits(more int) bool { return more <= p.room }

func (p *packer) count(size int) {
	p.bytes += size
	p.room -= size
}

// beginning is how many bytes at the end of text begin a character without ending
// it.
func beginning(text string) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRuneInString(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// valid is the text with U+FFFD for every byte that is part of no character.
func valid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}

// grown is the size that a text has at most once it is valid.
func grown(text string) int {
	if utf8.ValidString(text) {
		return len(text)
	}
	return len(text) * len("\uFFFD")
}
