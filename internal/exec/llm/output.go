package llm

import (
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// piece is a piece of one string of a delta, such as some words of reasoning.
type piece struct {
	choice int
	member string
	text   []byte // empty for none
}

// maxPiece is the size at which a piece is written, in bytes.
const maxPiece = 1 << 10

// event returns the piece as an event.
func (p *piece) event() []byte {
	b := append([]byte(nil), `{"choices":[{"delta":{`...)
	b = append(append(append(b, encodeJSON(p.member)...), ':'), encodeJSON(string(p.text))...)
	return append(strconv.AppendInt(append(b, `},"index":`...), int64(p.choice), 10), "}]}"...)
}

// write writes what a chunk adds to the sink: first the event, then the text.
func (c *call) write(a added) error {
	switch {
	case a.piece != nil:
		return c.hold(a.piece.choice, []byte(a.piece.member), string(a.piece.text))
	case a.text == "" && a.event == nil:
		return nil
	}
	if err := c.flushPiece(); err != nil {
		return err
	}
	if a.event != nil {
		if err := c.writeEvent(a.event); err != nil {
			return err
		}
	}
	if a.text == "" {
		return nil
	}
	if err := c.count(len(a.text)); err != nil {
		return err
	}
	return c.out.Text(a.text)
}

// hold adds a piece to the held one. Many short pieces of the same string become one event, so
// that words are stored and not their wrapping. A piece is held only while further bytes of the
// answer have arrived.
func (c *call) hold(choice int, member []byte, text string) error {
	h := &c.held
	if len(h.text) > 0 && (h.choice != choice || h.member != string(member) || len(h.text)+len(text) > maxPiece) {
		if err := c.flushPiece(); err != nil {
			return err
		}
	}
	if h.member != string(member) {
		h.member = string(member)
	}
	h.choice, h.text = choice, append(h.text, text...)
	return c.limit()
}

// flushPiece writes the held piece.
func (c *call) flushPiece() error {
	if len(c.held.text) == 0 {
		return nil
	}
	event := c.held.event()
	if c.held.text = c.held.text[:0]; cap(c.held.text) > maxKeptBuffer {
		c.held.text = nil
	}
	return c.writeEvent(event)
}

// writeRest writes what the log lacks at the end of a complete answer.
func (c *call) writeRest() error {
	if err := c.flushPiece(); err != nil {
		return err
	}
	return c.write(c.completion.flush())
}

func (c *call) writeEvent(event []byte) error {
	if err := c.count(len(event)); err != nil {
		return err
	}
	return c.out.Event(event)
}

// count counts bytes of output and reports the progress.
func (c *call) count(size int) error {
	c.size += size
	if err := c.limit(); err != nil {
		return err
	}
	return c.reportChunk()
}

// limit returns a fault if the answer is too large.
func (c *call) limit() error {
	if c.size > job.MaxOutput || c.completion.kept > job.MaxResult {
		return c.tooLargeFault()
	}
	return nil
}

// reportChunk increases the progress with each chunk, towards 80 percent: quickly at first, and
// never beyond, because the number of tokens is unknown. Before the first words it is 0.
func (c *call) reportChunk() error {
	c.chunks++
	n := float64(c.chunks)
	return c.reportProgress(float64(int(1+79*n/(n+200))), "Generating response")
}

func (c *call) reportProgress(percent float64, status string) error {
	if percent <= c.percent {
		return nil
	}
	c.percent = percent
	return c.out.Progress(job.Progress{Percent: percent, Status: status})
}
