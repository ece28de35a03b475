package jobs

import (
	"context"
	"io"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ending is a watch of a job that has ended.
type ending struct{ closed int }

func (e *ending) Next(context.Context) (engine.Update, error) { return engine.Update{}, io.EOF }
func (e *ending) Close()                                      { e.closed++ }

// ears is told a story and calls heard when it ends.
type ears struct{ heard func() }

func (e ears) tell(event string, _ eventID, _ func([]byte) []byte) error {
	if event == "done" {
		e.heard()
	}
	return nil
}
func (ears) send() error  { return nil }
func (ears) quiet() error { return nil }

// Whoever hears that a job has ended may follow another in its place: the watch is
// closed, and the socket has room, before the end is told.
func TestAPlaceIsFreeBeforeItsHolderHearsOfIt(t *testing.T) {
	ended := aJob()
	ended.State = job.Succeeded
	full := func() (engine.Snapshot, error) { return engine.Snapshot{Job: ended}, nil }
	ends := func(last func(func() error) error, heard func()) {
		t.Helper()
		told := false
		s := story{out: ears{func() { told = true; heard() }}, full: full, last: last}
		if over, err := s.begin(engine.Update{Job: &ended}); !over || err != nil || !told {
			t.Errorf("over %v, %v, told %v", over, err, told)
		}
	}

	stream := &ending{}
	l := &listener{watch: stream}
	ends(l.last, func() {
		if stream.closed != 1 {
			t.Error("a stream tells of the end while its watch is open")
		}
	})
	l.close()

	watch := &ending{}
	w := &followed{id: anID, watch: watch}
	s := &session{followed: map[job.ID]*followed{anID: w}}
	ends(func(tell func() error) error { return s.last(w, tell) }, func() {
		if watch.closed != 1 || len(s.followed) != 0 {
			t.Error("a socket tells of the end while it follows the job")
		}
	})
	again := &followed{id: anID}
	s.followed[anID] = again // the client was quick, and follows the job again
	s.end(t.Context(), w, nil)
	if s.followed[anID] != again {
		t.Error("the end of the first watch ended the second")
	}
	if stream.closed != 1 || watch.closed != 1 {
		t.Errorf("the watches were closed %d and %d times", stream.closed, watch.closed)
	}
}
