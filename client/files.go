package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Attachment is a file to submit with a job. [AttachFile] makes one from a file on disk,
// [AttachBytes] from memory.
type Attachment struct {
	Name        string // the file's name in the job; the server removes any directory from it
	ContentType string // such as "image/png"; "" when unknown
	// Open opens the content and returns its size in bytes, -1 when unknown. The client
	// calls it once for each try and closes the content. An error ends the call.
	Open func() (content io.ReadCloser, size int64, err error)
}

// AttachFile returns an attachment for the file at path. Its name is the last element of
// the path, its content type follows from the extension. The file is opened when it is
// submitted: a missing file is an error of [Client.SubmitFiles].
func AttachFile(path string) Attachment {
	return Attachment{
		Name:        filepath.Base(path),
		ContentType: mime.TypeByExtension(filepath.Ext(path)),
		Open: func() (io.ReadCloser, int64, error) {
			file, err := os.Open(path)
			if err != nil {
				return nil, 0, err
			}
			info, err := file.Stat()
			if err != nil || !info.Mode().IsRegular() {
				return file, -1, err
			}
			return file, info.Size(), nil
		},
	}
}

// AttachBytes returns an attachment with content from memory, which must not be changed
// until the call has returned.
func AttachBytes(name, contentType string, content []byte) Attachment {
	return Attachment{Name: name, ContentType: contentType, Open: func() (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(content)), int64(len(content)), nil
	}}
}

// SubmitFiles submits a job with files. Otherwise it works like [Client.Submit]. It streams
// the files and does not keep them in memory. The limit of [WithTimeout] applies to the time
// without progress, so a long upload is not cut off. The files belong to the content of the
// submission: other files with the same IdempotencyKey cause the error
// [CodeIdempotencyMismatch]. Further refusals are [CodeTooLarge], and [CodeInvalid] for a
// queue that accepts no files.
func (c *Client) SubmitFiles(ctx context.Context, s Submission, files ...Attachment) (*Job, error) {
	text, err := s.encode("")
	if err != nil {
		return nil, err
	}
	k := &call{method: http.MethodPost, path: "/v1/jobs", form: &form{job: text, files: files}, key: s.IdempotencyKey}
	if k.key == "" && c.retries > 0 {
		k.key = newKey()
	}
	j := new(Job)
	if _, err := c.json(ctx, k, j); err != nil {
		return nil, err
	}
	return j, nil
}

// form is a submission with files, sent as multipart/form-data (RFC 7578). The job comes
// first, so that the server can refuse it before it has received the files.
type form struct {
	job   []byte
	files []Attachment
}

// tryForm makes one try of a call that sends files. See [Client.try].
func (c *Client) tryForm(ctx context.Context, k *call) (answer, error) {
	up, err := k.form.open()
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.timeout > 0 {
		idle := time.AfterFunc(c.timeout, func() { cancel(errNoAnswer) })
		defer idle.Stop()
		up.onRead = func() { idle.Reset(c.timeout) }
	}
	withUpload := *k
	withUpload.upload = up
	a, err := c.exchange(ctx, &withUpload)
	if broken := up.readErr.Load(); err != nil && broken != nil {
		// The transport reports a broken request. The cause is the file, not the server,
		// so the call must not be retried.
		return answer{}, *broken
	}
	return a, err
}

// open opens all files and prepares the text between them, so that the size of the whole
// request is known.
func (f *form) open() (*upload, error) {
	var text bytes.Buffer
	w := multipart.NewWriter(&text) // writes to memory, so no call on it fails
	s := &upload{contentType: w.FormDataContentType(), onRead: func() {}}
	createPart(w, "job", "", "application/json")
	text.Write(f.job)
	for _, file := range f.files {
		content, size, err := file.Open()
		if err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("client: the file %s cannot be read: %w", file.Name, err)
		}
		createPart(w, "file", file.Name, file.ContentType)
		s.addText(&text)
		s.addFile(file.Name, content, size)
	}
	// Close writes the final boundary.
	_ = w.Close()
	s.addText(&text)
	return s, nil
}

// createPart writes the header of a part.
func createPart(w *multipart.Writer, name, file, contentType string) {
	params := map[string]string{"name": name}
	if file != "" {
		params["filename"] = file
	}
	h := textproto.MIMEHeader{"Content-Disposition": {mime.FormatMediaType("form-data", params)}}
	if contentType != "" {
		h["Content-Type"] = []string{contentType}
	}
	_, _ = w.CreatePart(h)
}

// upload is the request body of one try that sends a form. A goroutine of the transport
// calls its methods.
type upload struct {
	// set once
	contentType string // its Content-Type
	size        int64  // -1 when not known
	files       []io.Closer
	onRead      func() // called when the server has accepted more bytes

	parts   []io.Reader           // what is left to be sent
	readErr atomic.Pointer[error] // why a file could not be read to its end
}

// addText adds the written text as a part and empties the buffer.
func (s *upload) addText(text *bytes.Buffer) {
	part := bytes.Clone(text.Bytes())
	text.Reset()
	s.parts = append(s.parts, bytes.NewReader(part))
	s.count(int64(len(part)))
}

func (s *upload) addFile(name string, content io.ReadCloser, size int64) {
	part := io.Reader(content)
	if size >= 0 {
		part = &sizedReader{content: content, name: name, size: size}
	}
	s.parts = append(s.parts, part)
	s.files = append(s.files, content)
	s.count(size)
}

// count adds the size of a part. A part of unknown size makes the whole size unknown.
func (s *upload) count(size int64) {
	if size < 0 || s.size < 0 {
		s.size = -1
		return
	}
	s.size += size
}

func (s *upload) Read(p []byte) (int, error) {
	s.onRead()
	for len(s.parts) > 0 {
		n, err := s.parts[0].Read(p)
		if errors.Is(err, io.EOF) {
			s.parts, err = s.parts[1:], nil
		}
		if err != nil {
			err = fmt.Errorf("client: a file cannot be sent to its end: %w", err)
			s.readErr.Store(&err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

// Close closes the files.
func (s *upload) Close() error {
	for _, f := range s.files {
		_ = f.Close()
	}
	return nil
}

// sizedReader reads a file and fails when its size has changed since it was opened. The
// Content-Length of the request was computed with the original size.
type sizedReader struct {
	content io.Reader
	name    string
	size    int64 // when it was opened
	read    int64
}

func (f *sizedReader) Read(p []byte) (int, error) {
	n, err := f.content.Read(p)
	f.read += int64(n)
	switch {
	case f.read > f.size:
		return 0, fmt.Errorf("%s has grown while it was sent: it had %d bytes", f.name, f.size)
	case err == io.EOF && f.read < f.size:
		return n, fmt.Errorf("%s has shrunk while it was sent: it has %d bytes, and had %d", f.name, f.read, f.size)
	}
	return n, err
}
