package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/meanwhile-run/meanwhile/client"
)

// attachments are the files of --file. On a terminal, a progress bar shows how much of a
// large upload was sent.
type attachments struct {
	// set once
	screen *screen
	files  []client.Attachment
	total  int64 // bytes

	mu      sync.Mutex // the transport may still read after the answer has come
	sent    int64      // guarded by mu
	stopped bool       // guarded by mu
}

// minProgressBytes is the size of the smallest upload with a progress bar.
const minProgressBytes = 4 << 20

// attach checks that the files exist, before any request to the server.
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
		a.files = append(a.files, a.withProgress(client.AttachFile(path)))
	}
	return a, nil
}

// submit submits a job with the files, if there are any.
func (a *attachments) submit(ctx context.Context, c *client.Client, s client.Submission) (*client.Job, error) {
	if len(a.files) == 0 {
		return c.Submit(ctx, s)
	}
	defer a.stop()
	return c.SubmitFiles(ctx, s, a.files...)
}

// withProgress returns f with a reader that reports each read.
func (a *attachments) withProgress(f client.Attachment) client.Attachment {
	open := f.Open
	f.Open = func() (io.ReadCloser, int64, error) {
		content, size, err := open()
		if err != nil {
			return nil, 0, err
		}
		return &progressReader{ReadCloser: content, attachments: a, name: f.Name}, size, nil
	}
	return f
}

type progressReader struct {
	io.ReadCloser // set once
	attachments   *attachments
	name          string
	sent          int64
}

func (c *progressReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sent += int64(n)
	c.attachments.count(c.name, int64(n))
	return n, err
}

// Close subtracts the bytes of this try from the progress. A further try sends them again.
func (c *progressReader) Close() error {
	c.attachments.count(c.name, -c.sent)
	c.sent = 0
	return c.ReadCloser.Close()
}

func (a *attachments) count(name string, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// The transport may still read after stop, but the bar must not appear again.
	if a.sent += n; a.stopped || a.total < minProgressBytes || n < 0 {
		return
	}
	percent := 100 * float64(a.sent) / float64(a.total)
	a.screen.progress(client.Progress{Percent: percent, Status: "Sending " + name})
}

// withoutBar calls report with the lock, so that no progress bar is drawn meanwhile.
func (a *attachments) withoutBar(report func(client.Retry)) func(client.Retry) {
	return func(r client.Retry) {
		a.mu.Lock()
		defer a.mu.Unlock()
		report(r)
	}
}

// stop removes the progress bar for good.
func (a *attachments) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.screen.clear()
}
