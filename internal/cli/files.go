package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/meanwhile-run/meanwhile/client"
)

// attachments are the files that --file names, and how much of them was sent. On a
// terminal that is shown for files that take their time.
type attachments struct {
	// Set once.
	screen *screen
	files  []client.Attachment
	total  int64 // bytes; 0 when not known

	mu   sync.Mutex // a transport may read on when the submit has its answer
	sent int64      // guarded by mu
	over bool       // guarded by mu
}

// worthShowing is from how many bytes on a bar shows how much was sent.
const worthShowing = 4 << 20

// attach looks for the files before anything is asked of a server.
func attach(paths []string, s *screen) (*attachments, error) {
	a := &attachments{screen: s}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, usageError{fmt.Errorf("--file: %w", err)}
		}
		if info.IsDir() {
			return nil, usagef("--file %s: this is a directory", path)
		}
		a.total += info.Size()
		a.files = append(a.files, a.counted(client.AttachFile(path)))
	}
	return a, nil
}

// submit submits a job with its files, if it has any.
func (a *attachments) submit(ctx context.Context, c *client.Client, s client.Submission) (*client.Job, error) {
	if len(a.files) == 0 {
		return c.Submit(ctx, s)
	}
	defer a.end()
	return c.SubmitFiles(ctx, s, a.files...)
}

// counted is a file that tells of each piece that was read of it.
func (a *attachments) counted(f client.Attachment) client.Attachment {
	open := f.Open
	f.Open = func() (io.ReadCloser, int64, error) {
		content, size, err := open()
		if err != nil {
			return nil, 0, err
		}
		return &counter{ReadCloser: content, of: a, name: f.Name}, size, nil
	}
	return f
}

type counter struct {
	io.ReadCloser // set once
	of            *attachments
	name          string
	sent          int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sent += int64(n)
	c.of.count(c.name, int64(n))
	return n, err
}

// Close takes back what was sent in vain: another try sends it again.
func (c *counter) Close() error {
	c.of.count(c.name, -c.sent)
	c.sent = 0
	return c.ReadCloser.Close()
}

func (a *attachments) count(name string, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sent += n; a.over || a.total < worthShowing || n < 0 {
		return
	}
	percent := 100 * float64(a.sent) / float64(a.total)
	a.screen.progress(client.Progress{Percent: percent, Status: "Sending " + name}, client.Running)
}

// undisturbed keeps what is said of a retry and the bar apart.
func (a *attachments) undisturbed(say func(client.Retry)) func(client.Retry) {
	return func(r client.Retry) {
		a.mu.Lock()
		defer a.mu.Unlock()
		say(r)
	}
}

// end takes the bar away for good.
func (a *attachments) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.screen.clear()
}
