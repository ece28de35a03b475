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

// Task is one attempt of one job. Its fields describe the job; its methods write output
// while the attempt runs. Output is stored with the job before any client sees it.
//
// Several goroutines may call the methods until the function of the attempt has returned.
// When a method returns an error, the attempt is over and the function should return.
type Task struct {
	JobID       string
	Queue       string
	Kind        string            // the kind of [HandleKind]; "" in a queue of [Handle]
	User        string            // who submitted the job
	Key         string            // the key of [Submission]; "" for none
	Attempt     int               // 1 for the first attempt
	MaxAttempts int               // how many attempts may fail
	Metadata    map[string]string // nil for none
	Input       json.RawMessage   // as submitted; it must not be changed
	Files       []File            // the files submitted with the job

	mu   sync.Mutex
	sink exec.Sink // guarded by mu; nil once the attempt is over
}

// File is a file that was submitted with a job. It can be read until the attempt ends, and
// must not be changed.
type File struct {
	Name        string // the name given by the client, without a directory
	ContentType string
	Size        int64  // bytes
	SHA256      string // SHA-256 of the content, in hexadecimal
	Path        string // absolute path on this machine
}

var errTaskOver = errors.New("meanwhile: the attempt is over")

func newTask(kind string, t exec.Task, out exec.Sink) *Task {
	task := &Task{
		JobID: t.Job.ID.String(), Queue: t.Job.Queue, Kind: kind, User: t.Job.Owner.User, Key: t.Job.Key,
		Attempt: t.Job.Attempt, MaxAttempts: t.Job.MaxAttempts, Metadata: t.Job.Metadata, Input: t.Input, sink: out,
	}
	for _, f := range t.Files {
		task.Files = append(task.Files, File{Name: f.Name, ContentType: f.ContentType, Size: f.Size, SHA256: f.SHA256, Path: f.Path})
	}
	return task
}

// close makes all later calls return errTaskOver. The function may have passed the task to
// a goroutine that still runs.
func (t *Task) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sink = nil
}

// write calls send with the sink, unless the attempt is over.
func (t *Task) write(send func(exec.Sink) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sink == nil {
		return errTaskOver
	}
	return send(t.sink)
}

// Text writes a piece of the text output. Clients join the pieces.
func (t *Task) Text(piece string) error {
	return t.write(func(out exec.Sink) error { return out.Text(piece) })
}

// Event writes one event, encoded as JSON. It returns an error for a value that
// encoding/json cannot encode.
func (t *Task) Event(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("meanwhile: the event cannot be written as JSON: %w", err)
	}
	return t.write(func(out exec.Sink) error { return out.Event(data) })
}

// Log writes one log line for operators, formatted as by fmt.Sprintf. It replaces line
// breaks and repeated white space by single spaces.
func (t *Task) Log(format string, args ...any) error {
	// A log entry is one line, so that it can be printed as one.
	line := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	return t.write(func(out exec.Sink) error { return out.Log(line) })
}

// Progress reports the progress of the attempt: percent from 0 to 100, and a text about the
// current work. A lower percent than before is ignored. Reports in quick succession are
// merged.
func (t *Task) Progress(percent float64, status string) error {
	return t.write(func(out exec.Sink) error {
		return out.Progress(job.Progress{Percent: percent, Status: status})
	})
}

// Usage sets the cost of the work, as any JSON value. It is stored with every outcome of the
// attempt. A later call replaces it.
func (t *Task) Usage(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("meanwhile: the usage cannot be written as JSON: %w", err)
	}
	return t.write(func(out exec.Sink) error { out.Usage(data); return nil })
}
