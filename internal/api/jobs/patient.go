package jobs

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	writeTime  = 30 * time.Second // for a piece: a reader who takes longer is dropped
	writePiece = 64 << 10
)

// patient writes to a reader who may be slow, in pieces, and gives up on one who
// does not take a piece in time.
type patient struct {
	to  carrier
	set time.Time // when the deadline was last moved
}

// carrier takes what is written to the client: net/http, or a line.
type carrier interface {
	io.Writer
	Flush() error
	SetWriteDeadline(time.Time) error
}

// handlers is what net/http carries while a handler runs.
type handlers struct {
	http.ResponseWriter
	*http.ResponseController
}

func patience(w http.ResponseWriter) *patient {
	return &patient{to: handlers{w, http.NewResponseController(w)}}
}

// Write writes all of p or says why not.
func (p *patient) Write(data []byte) (int, error) {
	for done := 0; ; {
		if err := p.allow(); err != nil {
			return done, err
		}
		piece := data[done:min(done+writePiece, len(data))]
		n, err := p.to.Write(piece)
		done += n
		if err != nil || done == len(data) {
			return done, err
		}
	}
}

// allow gives the reader its time for a piece, and a little more or less: to move a
// deadline for every word of a stream would cost as much as the word.
func (p *patient) allow() error {
	now := time.Now()
	if now.Sub(p.set) < writeTime/6 {
		return nil
	}
	p.set = now
	return p.deadline(now.Add(writeTime))
}

// flush sends what was written.
func (p *patient) flush() error {
	if err := p.to.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// release takes the deadline off, for what is asked next on the connection.
func (p *patient) release() { _ = p.deadline(time.Time{}) }

func (p *patient) deadline(t time.Time) error {
	if err := p.to.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
