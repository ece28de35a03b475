package client

import (
	"bytes"
	"context"
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

// Attachment is a file that is to be submitted with a job. [AttachFile] makes one of a
// file on this machine.
type Attachment struct {
	Name        string // what the job calls it; the server takes from it what would be a path
	ContentType string // "" when it is not known
	// Open begins to read the content, anew for each try, and says how many bytes it
	// has; -1 when nobody knows. The client closes it.
	Open func() (content io.ReadCloser, size int64, err error)
}

// AttachFile is the file at a path, under the path's last element as its name. Its
// content type is what the name's extension says.
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

// SubmitFiles is [Client.Submit] with files, which are streamed to the server and
// never held in memory. It may take as long as they go on being sent; the time of
// [WithTimeout] is how long nothing may move. The same submission is one with the
// same files: another file under the same IdempotencyKey is the error
// [CodeIdempotencyMismatch]. Further refusals: [CodeTooLarge], and [CodeInvalid] for
// a queue that takes no files.
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

// form is a submission with files: multipart/form-data of RFC 7578, the job first,
// so that what can be refused by it is refused before the files were sent.
type form struct {
	job   []byte
	files []Attachment
}

// tryForm is [Client.try] for a call that sends files.
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
		return answer{}, *broken // the server is not to blame
	}
	return a, err
}

// open opens all files, and writes down what stands around them.
func (f *form) open() (*upload, error) {
	var text bytes.Buffer
	w := multipart.NewWriter(&text) // into memory, which does not fail
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
	_ = w.Close()
	s.addText(&text)
	return s, nil
}

// beginPart writes the head of a part.
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

// sending is a form on its way, in one try. It is the body of the request, so that
// its methods are called by a goroutine of the transport.
type upload struct {
	// Set once.
	contentType  string // its Content-Type
	size  int64  // -1 when not known
	files []io.Closer
	onRead func() // called when the server has taken something

	parts  []io.Reader           // what is left to be sent
	readErr atomic.Pointer[error] // why a file could not be read to its end
}

// addText adds what was written, and makes room for what comes.
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

// count adds a size to the whole; a part of unknown size makes it unknown.
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
		if err == io.EOF {
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

// sized is a file that must have as many bytes as it had when it was opened: the
// length of the request, and the place of what follows, were told with that size.
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
