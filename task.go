package meanwhile

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Task is one attempt of one job, as the function sees it that does it: what is known
// of the job, and how to speak while it runs. What is said is stored before anyone sees
// it, and is kept with the job.
//
// The methods that speak may be called by several goroutines, until the function has
// returned. Their error says that the attempt is over: there is nothing to do but to
// return.
type Task struct {
	JobID       string
	Queue       string
	User        string
	Key         string
	Attempt     int // 1 for the first
	MaxAttempts int
	Metadata    map[string]string
	Files       []File // that came with the job

	mu   sync.Mutex
	sink exec.Sink // guarded by mu; nil once the attempt is over
}

// File is a file that came with a job. It is there, read-only, for as long as the
// attempt lasts.
type File struct {
	Name        string // as its sender called it, without any directory
	ContentType string
	Size        int64  // bytes
	SHA256      string // of its bytes, in hexadecimal
	Path        string // absolute
}

var errTaskOver = errors.New("meanwhile: the attempt is over")

func newTask(t exec.Task, out exec.Sink) *Task {
	task := &Task{
		JobID: t.Job.ID.String(), Queue: t.Job.Queue, User: t.Job.Owner.User, Key: t.Job.Key,
		Attempt: t.Job.Attempt, MaxAttempts: t.Job.MaxAttempts, Metadata: t.Job.Metadata, sink: out,
	}
	for _, f := range t.Files {
		task.Files = append(task.Files, File{Name: f.Name, ContentType: f.ContentType, Size: f.Size, SHA256: f.SHA256, Path: f.Path})
	}
	return task
}

// end takes the voice from whoever still has the task.
func (t *Task) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sink = nil
}

// say speaks, unless the attempt is over.
func (t *Task) write(send func(exec.Sink) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sink == nil {
		return errTaskOver
	}
	return send(t.sink)
}

// Text says a piece of the answer; pieces are joined.
func (t *Task) Text(piece string) error {
	return t.write(func(out exec.Sink) error { return out.Text(piece) })
}

// Event says something that is no text, as one JSON value.
func (t *Task) Event(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("meanwhile: the event cannot be written as JSON: %w", err)
	}
	return t.write(func(out exec.Sink) error { return out.Event(data) })
}

// Log says a line for whoever operates the job, formatted as by fmt.Sprintf.
func (t *Task) Log(format string, args ...any) error {
	line := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	return t.write(func(out exec.Sink) error { return out.Log(line) })
}

// Progress says how far the attempt is, 0 to 100, and what it is doing. Percent never
// falls: less than before counts as before. Reports that follow each other quickly are
// joined.
func (t *Task) Progress(percent float64, status string) error {
	return t.write(func(out exec.Sink) error {
		return out.Progress(job.Progress{Percent: percent, Status: status})
	})
}

// Usage sets what the work cost, in the program's own words; it is kept however the
// attempt ends.
func (t *Task) Usage(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("meanwhile: the usage cannot be written as JSON: %w", err)
	}
	return t.write(func(out exec.Sink) error { out.Usage(data); return nil })
}
