package jobs

import (
	"errors"
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
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

func patience(w http.ResponseWriter) *patient {
	return &patient{w: w, ctrl: http.NewResponseController(w)}
}

// Write writes all of p or says why not.
func (p *patient) Write(data []byte) (int, error) {
	for done := 0; ; {
		if err := p.deadline(time.Now().Add(writeTime)); err != nil {
			return done, err
		}
		piece := data[done:min(done+writePiece, len(data))]
		n, err := p.w.Write(piece)
		done += n
		if err != nil || done == len(data) {
			return done, err
		}
	}
}

// flush sends what was written.
func (p *patient) flush() error {
	if err := p.ctrl.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// release takes the deadline off, for what is asked next on the connection.
func (p *patient) release() { _ = p.deadline(time.Time{}) }

func (p *patient) deadline(t time.Time) error {
	if err := p.ctrl.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
