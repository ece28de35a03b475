package jobs

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// scriptedWatcher returns its updates one by one and then waits until its context ends.
type scriptedWatcher struct {
	updates []engine.Update
	err     error // returned after the updates, instead of a wait
	mu      sync.Mutex
	closed  bool
}

func updatesOf(j job.Job) []engine.Update { return []engine.Update{{Job: new(j)}} }

func (s *scriptedWatcher) Next(ctx context.Context) (engine.Update, error) {
	if len(s.updates) > 0 {
		up := s.updates[0]
		s.updates = s.updates[1:]
		return up, nil
	}
	if s.err != nil {
		return engine.Update{}, s.err
	}
	<-ctx.Done()
	return engine.Update{}, ctx.Err()
}

func (s *scriptedWatcher) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *scriptedWatcher) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// recorder is a response whose client may stop reading: it accepts stuckAfter bytes (all,
// if 0) and then blocks until the write deadline.
type recorder struct {
	Code       int
	Body       bytes.Buffer
	stuckAfter int
	header     http.Header
	deadline   time.Time
	flushes    int
	largest    int // the most bytes of one write
	mu         sync.Mutex
}

func newRecorder() *recorder { return &recorder{header: http.Header{}} }

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) { w.Code = status }

func (w *recorder) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Code == 0 {
		w.Code = http.StatusOK
	}
	w.largest = max(w.largest, len(p))
	if w.stuckAfter > 0 && w.Body.Len()+len(p) > w.stuckAfter {
		time.Sleep(time.Until(w.deadline)) // in a bubble, where it only moves the fake clock
		return 0, os.ErrDeadlineExceeded
	}
	return w.Body.Write(p)
}

func (w *recorder) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushes++
}

func (w *recorder) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	return nil
}

// flushed returns how often the response was flushed.
func (w *recorder) flushed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushes
}

func (w *recorder) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Body.String()
}

// message is a server-sent event as a browser dispatches it.
type message struct{ event, id, data string }

// parseEvents parses a stream as a browser does: it ignores an event without the empty
// line at its end.
func parseEvents(stream string) []message {
	var all []message
	var m message
	in := bufio.NewReader(strings.NewReader(stream))
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return all
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if m.data != "" {
				all = append(all, m)
			}
			m = message{id: m.id}
		case name == "event":
			m.event = value
		case name == "id":
			m.id = value
		case name == "data":
			m.data += value
		}
	}
}

func eventNames(all []message) string {
	var parts []string
	for _, m := range all {
		parts = append(parts, m.event+"@"+m.id)
	}
	return strings.Join(parts, " ")
}
