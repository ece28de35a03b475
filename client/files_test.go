package client

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// textAttachment returns an attachment with that content.
func textAttachment(name, content string, size int64) Attachment {
	return Attachment{Name: name, Open: func() (io.ReadCloser, int64, error) {
		return io.NopCloser(strings.NewReader(content)), size, nil
	}}
}

// readForm reads the form of a request and returns one line for each part.
func readForm(t *testing.T, r *http.Request) string {
	parts, err := r.MultipartReader()
	if err != nil {
		t.Error(err)
		return ""
	}
	var text strings.Builder
	for {
		p, err := parts.NextRawPart()
		if err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			return text.String()
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Error(err)
		}
		text.WriteString(strings.Join([]string{p.FormName(), p.FileName(), p.Header.Get("Content-Type"), string(content)}, "|") + "\n")
	}
}

func TestSubmitFilesSendsMultipartForm(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "scan.png")
	if err := os.WriteFile(path, []byte("\x89PNG"), 0o600); err != nil {
		t.Fatal(err)
	}
	const job = `job||application/json|{"queue":"ocr","input":null}` + "\n"
	for rule, tt := range map[string]struct {
		files     []Attachment
		want      string
		knownSize bool
	}{
		"no file":             {nil, job, true},
		"a file on disk":      {[]Attachment{AttachFile(path)}, job + "file|scan.png|image/png|\x89PNG\n", true},
		"an empty file":       {[]Attachment{textAttachment("a", "", 0)}, job + "file|a||\n", true},
		"two of known size":   {[]Attachment{textAttachment("a", "x", 1), textAttachment("b", "yy", 2)}, job + "file|a||x\nfile|b||yy\n", true},
		"one of unknown size": {[]Attachment{textAttachment("a", "x", 1), textAttachment("b", "yy", -1)}, job + "file|a||x\nfile|b||yy\n", false},
		"special characters":  {[]Attachment{textAttachment(`ü "1"\2.txt`, "x", 1)}, job + "file|ü \"1\"\\2.txt||x\n", true},
	} {
		t.Run(rule, func(t *testing.T) {
			var form string
			var length int64
			c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
				form, length = readForm(t, r), r.ContentLength
				okJob(w, r)
			})
			if _, err := c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, tt.files...); err != nil {
				t.Fatal(err)
			}
			if form != tt.want || (length > 0) != tt.knownSize {
				t.Errorf("sent\n%s\nwith the length %d", form, length)
			}
		})
	}
}

// Nothing is sent to a full server, and each try opens the files again.
func TestSubmitFilesRetriesFromStart(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		opened, keys := 0, map[string]bool{}
		file := textAttachment("a", "", -1)
		file.Open = func() (io.ReadCloser, int64, error) {
			opened++
			return io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), 1 << 20, nil
		}
		var form string
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			keys[r.Header.Get("Idempotency-Key")] = true
			switch opened {
			case 1:
				writeProblem(w, 503, CodeQueueFull, "1")
			case 2:
				_, _ = io.CopyN(io.Discard, r.Body, 1<<19)
				cutConnection()
			default:
				form = readForm(t, r)
				okJob(w, r)
			}
		}))
		if _, err := c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, file); err != nil {
			t.Fatal(err)
		}
		if opened != 3 || len(keys) != 1 || strings.Count(form, "x") < 1<<20 {
			t.Errorf("the file was opened %d times, with the keys %v", opened, keys)
		}
	})
}

// A refusal that needs no file is returned before a file is sent.
func TestSubmitFilesSendsNoFileAfterRefusal(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) { writeProblem(w, 400, CodeInvalid, "") })
	_, err := c.SubmitFiles(t.Context(), Submission{Queue: "sim"}, Attachment{Name: "a", Open: func() (io.ReadCloser, int64, error) {
		return io.NopCloser(countingReader{zeros{}, &sent}), 1 << 40, nil
	}})
	wantCode(t, err, CodeInvalid)
	if sent.Load() != 0 {
		t.Errorf("%d bytes were sent", sent.Load())
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// An unreadable file is not the server's fault, so the call is not retried.
func TestSubmitFilesDoesNotRetryUnreadableFile(t *testing.T) {
	t.Parallel()
	broken, closed := errors.New("broken"), false
	tried := 0
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		tried++
		_, _ = io.Copy(io.Discard, r.Body)
		okJob(w, r)
	})
	whole := Attachment{Name: "whole", Open: func() (io.ReadCloser, int64, error) {
		return closeRecorder{strings.NewReader("x"), &closed}, 1, nil
	}}
	_, err := c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, whole, AttachFile(filepath.Join(t.TempDir(), "missing")))
	if !errors.Is(err, os.ErrNotExist) || tried != 0 || !closed {
		t.Errorf("a missing file: %v after %d tries, closed: %v", err, tried, closed)
	}
	_, err = c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, Attachment{Name: "a", Open: func() (io.ReadCloser, int64, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), iotest.ErrReader(broken))), 2 << 20, nil
	}})
	if !errors.Is(err, broken) || tried > 1 {
		t.Errorf("a file that cannot be read to its end: %v after %d tries", err, tried)
	}
}

// A file that changes during the upload is not the server's fault either, for any error of
// the transport.
func TestSubmitFilesRefusesChangedFile(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	for want, now := range map[string]int{
		"a has shrunk while it was sent: it has 2097151 bytes, and had 2097152": size - 1,
		"a has shrunk while it was sent: it has 0 bytes, and had 2097152":       0,
		"a has grown while it was sent: it had 2097152 bytes":                   size + 1,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				okJob(w, r)
			}
		}))
		opened := 0
		c, err := New(srv.URL, WithRetries(3), WithRetryHook(func(r Retry) { t.Errorf("the call was retried: %v", r.Err) }))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, Attachment{Name: "a", Open: func() (io.ReadCloser, int64, error) {
			opened++
			return io.NopCloser(bytes.NewReader(make([]byte, now))), size, nil
		}})
		if err == nil || CodeOf(err) != "" || !strings.Contains(err.Error(), want) || opened != 1 {
			t.Errorf("%v after %d tries, want %q", err, opened, want)
		}
		c.Close()
		srv.Close()
	}
}

type closeRecorder struct {
	io.Reader
	closed *bool
}

func (c closeRecorder) Close() error { *c.closed = true; return nil }

// An upload may take long while it makes progress. It fails when the server stops reading.
func TestSubmitFilesTimesOutOnlyWhenIdle(t *testing.T) {
	t.Parallel()
	const pieces = 20
	file := textAttachment("a", strings.Repeat("x", pieces<<20), pieces<<20)
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range pieces {
				<-time.After(20 * time.Second)
				_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			okJob(w, r)
		}))
		begun := time.Now()
		if _, err := c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, file); err != nil || time.Since(begun) < pieces*20*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		over := make(chan struct{})
		n.start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			<-over
		}))
		_, err := c.SubmitFiles(t.Context(), Submission{Queue: "ocr"}, file)
		wantCode(t, err, CodeUnreachable)
		close(over)
	}, WithRetries(0))
}
