package runner

import (
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxTextEntry  = 64 << 10 // maximum bytes of a text entry
	maxStatus     = 4 << 10  // maximum bytes of the status in a progress report; the rest is cut off
	entryOverhead = 128      // bytes that each entry counts in addition to its data
)

// packer collects output in entries. It joins text, keeps only the last progress report before
// each take, and makes an entry of each other piece. It has neither a lock nor a clock.
//
// The stored text is always UTF-8. If a piece ends with an incomplete character, the packer
// waits for the rest of the character. Each byte outside a character becomes U+FFFD, so the
// stored text does not depend on where the pieces were cut.
//
// The add methods return false and store nothing if the output would exceed its limit. Progress
// beyond the limit is dropped without an error, because it is no reason to fail.
type packer struct {
	attempt   int
	seq       int64 // of the last entry
	remaining int   // bytes that the attempt may still write

	entries []job.Entry
	bytes   int    // bytes of the entries' data
	partial string // the first bytes of an incomplete character

	progress job.Progress // the last report
	reported job.Progress // the last report that became an entry
}

// chunk is the output that one Append stores.
type chunk struct {
	entries  []job.Entry
	progress *job.Progress
	size     int // including the overhead of entries
}

// addAttempt marks the output of earlier attempts as superseded.
func (p *packer) addAttempt() bool {
	data, _ := json.Marshal(struct {
		Attempt int `json:"attempt"`
	}{p.attempt})
	return p.addEntry(job.KindAttempt, data)
}

// addText adds a piece to the end of the text.
func (p *packer) addText(piece string) bool {
	if p.partial != "" {
		piece = p.partial + piece
	}
	// Check the limit first, so that a refused piece changes nothing.
	whole := len(piece) - partialRuneLen(piece)
	text := replaceInvalid(piece[:whole])
	if !p.fits(len(text)) {
		return false
	}
	p.partial = strings.Clone(piece[whole:]) // a copy, because a slice would keep the whole piece in memory
	p.appendText(text)
	return true
}

// appendText appends whole characters to the last entry if that is a text entry with space left.
// Otherwise it adds an entry.
func (p *packer) appendText(text string) {
	if text == "" {
		return
	}
	if last := len(p.entries) - 1; last >= 0 {
		e := &p.entries[last]
		if e.Kind == job.KindText && len(e.Data)+len(text) <= maxTextEntry {
			e.Data = append(e.Data, text...)
			p.count(len(text))
			return
		}
	}
	p.addEntry(job.KindText, []byte(text))
}

// addEvent adds a copy of a JSON value as an entry.
func (p *packer) addEvent(value []byte) bool {
	return p.fits(len(value)) && p.addEntry(job.KindJSON, append([]byte{}, value...))
}

// addLog adds a log line as an entry.
func (p *packer) addLog(line string) bool {
	return p.fits(len(line)) && p.addEntry(job.KindLog, []byte(replaceInvalid(line)))
}

// addEntry adds an entry. The entry keeps data, without a copy.
func (p *packer) addEntry(kind job.Kind, data []byte) bool {
	if !p.fits(len(data)) {
		return false
	}
	p.seq++
	p.entries = append(p.entries, job.Entry{Seq: p.seq, Attempt: p.attempt, Kind: kind, Events: 1, Data: data})
	p.count(len(data))
	return true
}

// setProgress replaces the current progress. The percentage never decreases.
func (p *packer) setProgress(progress job.Progress) {
	progress.Percent = min(max(progress.Percent, p.progress.Percent), 100)
	// min and max do not remove NaN, and JSON has no NaN.
	if math.IsNaN(progress.Percent) {
		progress.Percent = p.progress.Percent
	}
	if len(progress.Status) > maxStatus {
		progress.Status = progress.Status[:maxStatus-partialRuneLen(progress.Status[:maxStatus])]
	}
	progress.Status = replaceInvalid(progress.Status)
	p.progress = progress
}

// completeProgress sets the progress to 100 percent if the attempt has reported any. It clears
// the status, which describes an earlier step.
func (p *packer) completeProgress() {
	if p.progress != (job.Progress{}) && p.progress.Percent < 100 {
		p.progress = job.Progress{Percent: 100}
	}
}

// progressChanged reports whether the progress justifies a write: its status differs, or its
// percentage is at least one higher.
func (p *packer) progressChanged() bool {
	return p.progress.Status != p.reported.Status || p.progress.Percent >= p.reported.Percent+1
}

// flushPartial ends the text: an incomplete character becomes U+FFFD.
func (p *packer) flushPartial() {
	text := replaceInvalid(p.partial)
	p.partial = ""
	if p.fits(len(text)) {
		p.appendText(text)
	}
}

// take removes and returns the collected entries. It includes the progress if withProgress is
// set.
func (p *packer) take(withProgress bool) chunk {
	c := chunk{size: p.bufferedSize()}
	if withProgress && p.progress != p.reported {
		c.progress = p.addProgress()
	}
	// Last, so that the progress is the last entry of the chunk.
	c.entries = p.entries
	p.entries, p.bytes = nil, 0
	return c
}

// addProgress adds the progress as an entry. It returns nil if the entry does not fit.
func (p *packer) addProgress() *job.Progress {
	// Set it even if the entry does not fit, because another try would fail again.
	p.reported = p.progress
	data, _ := json.Marshal(p.progress) // cannot fail: a finite number and a text
	if !p.addEntry(job.KindProgress, data) {
		return nil
	}
	progress := p.progress
	return &progress
}

// bufferedSize returns the size of the collected entries, as it counts for maxUnsaved.
func (p *packer) bufferedSize() int { return p.bytes + entryOverhead*len(p.entries) }

func (p *packer) fits(more int) bool { return more <= p.remaining }

func (p *packer) count(size int) {
	p.bytes += size
	p.remaining -= size
}

// partialRuneLen returns the length of an incomplete character at the end of text, in bytes.
func partialRuneLen(text string) int {
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

// replaceInvalid replaces every byte outside a character with U+FFFD.
func replaceInvalid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text)) // one U+FFFD per byte; strings.ToValidUTF8 writes one per run
}

// maxValidLen returns the largest length that replaceInvalid may give to text.
func maxValidLen(text string) int {
	if utf8.ValidString(text) {
		return len(text)
	}
	return len(text) * len("\uFFFD")
}
