package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The bounds of a submit with files, beside those of the files themselves.
const (
	formType    = "multipart/form-data"
	jobPart     = "job"    // the part that says what any other submit says in its body
	maxUploads  = 64       // at once
	maxHeaders  = 64 << 10 // bytes before, between and after the contents of the parts, each
	maxBoundary = 70       // characters (RFC 2046, section 5.1.1)
	maxType     = 255      // bytes of a file's content type
)

func isForm(r *http.Request) bool {
	text := r.Header.Get("Content-Type")
	if len(text) < len(formType) || !strings.EqualFold(text[:len(formType)], formType) {
		return false // told quickly, for nearly every submit is JSON
	}
	kind, _, _ := mime.ParseMediaType(text)
	return kind == formType
}

// submitForm stores a job that comes with files, as multipart/form-data (RFC 7578):
// a part "job", and a part for each file, in any order. The files are on disk before
// the job is.
func (f *API) submitForm(w http.ResponseWriter, r *http.Request, p api.Prefer) error {
	req, err := f.receive(w, r)
	if err != nil {
		return err
	}
	snap, existing, err := f.storeWithFiles(r, req)
	if err == nil && p.Wait > 0 && !snap.State.Ended() {
		later, waited := held(f, r, p.Wait, func(ctx context.Context, wait time.Duration) (engine.Snapshot, error) {
			return f.engine.Wait(ctx, req.Owner, snap.ID, wait)
		})
		if waited == nil { // else the job is stored all the same, and shown as it was then
			snap = later
		}
	}
	if err != nil {
		return err
	}
	f.answerSubmit(w, r, p, engine.SubmitResult{Snapshot: snap, Existing: existing})
	return nil
}

// storeWithFiles has the engine store the job whose files were received. Whoever
// leaves meanwhile does not end it: only its answer says whose the files are.
func (f *API) storeWithFiles(r *http.Request, req engine.Request) (engine.Snapshot, bool, error) {
	snap, existing, err := f.engine.Submit(context.WithoutCancel(r.Context()), req)
	if existing && snap.ID != req.ID || notStored(err) {
		f.files.Remove(req.ID)
	}
	return snap, existing, ofInput(err)
}

// notStored says that there is no job, for certain. Where that is not known its files
// stay, and the next start looks whose they are.
func notStored(err error) bool {
	code := job.CodeOf(err)
	return err != nil && code != job.Unavailable && code != job.Internal
}

// receive reads all that a submit with files says. When it is refused, nothing of it
// stays.
func (f *API) receive(w http.ResponseWriter, r *http.Request) (engine.Request, error) {
	u := &upload{face: f, r: r}
	if err := u.begin(w); err != nil {
		return engine.Request{}, err
	}
	defer u.from.Close()
	if n := f.uploads.Add(1); n > maxUploads {
		f.uploads.Add(-1)
		return engine.Request{}, &job.Error{Code: job.Overloaded, Message: "too many files are being received at the moment: try again in a moment", RetryAfter: 5 * time.Second}
	}
	defer f.uploads.Add(-1)
	u.stage = f.files.Stage(job.NewID())
	defer u.stage.Discard()
	if err := u.read(); err != nil {
		return engine.Request{}, err
	}
	req, err := u.request()
	if err != nil {
		return engine.Request{}, err
	}
	return req, u.stage.Commit()
}

// upload is a submit with files on its way in. It is used by one goroutine.
type upload struct {
	// Set once.
	face  *API
	r     *http.Request
	key   string // the idempotency key, or ""
	from  *api.Upload
	body  *allowance
	parts *multipart.Reader
	stage *files.Stage

	text  []byte // of the part job; nil before it came
	asked engine.Request
	queue engine.Queue
}

// begin looks at what is known before anything of the body is read.
func (u *upload) begin(w http.ResponseWriter) (err error) {
	_, params, err := mime.ParseMediaType(u.r.Header.Get("Content-Type"))
	boundary := params["boundary"]
	if err != nil || boundary == "" || len(boundary) > maxBoundary {
		return job.Errorf(job.Invalid, "the Content-Type %s needs a boundary of 1 to %d characters", formType, maxBoundary)
	}
	if u.key, err = api.IdempotencyKey(u.r.Header); err != nil {
		return err
	}
	if most := u.face.files.MaxJob() + job.MaxBody + (job.MaxFiles+3)*maxHeaders; u.r.ContentLength > most {
		return job.Errorf(job.TooLarge, "the body is larger than the files of a job may be together, which is %d bytes", u.face.files.MaxJob())
	}
	u.from = u.face.timeouts.Upload(w, u.r)
	u.body = &allowance{from: u.from}
	u.parts = multipart.NewReader(u.body, boundary)
	return nil
}

// read takes one part after the other, to the end of the body.
func (u *upload) read() error {
	for {
		u.body.left = maxHeaders
		p, err := u.parts.NextRawPart()
		if err == io.EOF { // at the last boundary; elsewhere it is wrapped
			return u.rest()
		}
		if err == nil {
			u.body.left = math.MaxInt64
			err = u.part(p)
		}
		if err != nil {
			return malformed(err)
		}
	}
}

// rest reads what stands after the last boundary, which means nothing; the server
// listens for the client's leaving only after the end of the body.
func (u *upload) rest() error {
	u.body.left = maxHeaders
	_, err := io.Copy(io.Discard, u.body)
	return err
}

// malformed is the refusal for a body that cannot be read; an error that is a refusal
// already stays what it is.
func malformed(err error) error {
	if refusal, ok := errors.AsType[*job.Error](err); ok {
		return refusal
	}
	return job.Wrapf(job.Invalid, err, "the body is not the %s that its Content-Type says, or ended too early", formType)
}

func (u *upload) part(p *multipart.Part) error {
	switch name := p.FormName(); {
	case name == "":
		return job.Errorf(job.Invalid, "a part has no name: each is to have Content-Disposition: form-data with a name")
	case !plainEncoding(p.Header.Get("Content-Transfer-Encoding")):
		return job.Errorf(job.Invalid, "the part %s has a Content-Transfer-Encoding: send its bytes as they are", job.Quote(name))
	case name == jobPart && u.text != nil:
		return job.Errorf(job.Invalid, "there are two parts %s; a request submits one job", jobPart)
	case name == jobPart:
		return u.job(p)
	case p.FileName() == "":
		return job.Errorf(job.Invalid, "the part %s is no file, for it has no filename; what the job is to work on stands in the part %s", job.Quote(name), jobPart)
	}
	if err := u.mayHaveFiles(1); err != nil {
		return err
	}
	_, err := u.stage.Receive(u.r.Context(), p.FileName(), typeOf(p), p)
	return err
}

func plainEncoding(name string) bool {
	switch name {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// typeOf is what a part says its content is.
func typeOf(p *multipart.Part) string {
	kind, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
	if text := mime.FormatMediaType(kind, params); err == nil && text != "" && len(text) <= maxType {
		return text
	}
	return "application/octet-stream"
}

// job reads the part that says what is to be done. What can be refused by it is
// refused before the files that follow.
func (u *upload) job(p *multipart.Part) (err error) {
	if u.text, err = io.ReadAll(io.LimitReader(p, job.MaxBody+1)); err != nil {
		return err
	}
	if len(u.text) > job.MaxBody {
		return job.Errorf(job.TooLarge, "the part %s is larger than the %d bytes that this call takes", jobPart, job.MaxBody)
	}
	if u.asked, err = u.face.asked(u.r, u.text, submission{Input: []byte("null")}); err != nil {
		return err
	}
	if u.queue, err = u.face.engine.Queue(u.asked.Queue); err != nil {
		return err
	}
	if err := u.mayHaveFiles(len(u.stage.Files())); err != nil {
		return err
	}
	return u.room()
}

// mayHaveFiles refuses files for a queue whose executor would not know what to do
// with them, as soon as the queue is known.
func (u *upload) mayHaveFiles(n int) error {
	if u.text == nil || n == 0 || u.queue.Files {
		return nil
	}
	return refuse("/queue", "the queue %s takes no files: its executor is %s", u.queue.Name, u.queue.Executor)
}

// room refuses at once what the queue has no room for, by what has come and by the
// length that was declared. A submit that was made before is not refused.
func (u *upload) room() error {
	size := max(u.stage.Bytes(), u.r.ContentLength-int64(len(u.text))-maxHeaders) + int64(len(u.asked.Input))
	err := u.face.engine.CheckCapacity(u.asked.Queue, size)
	if err != nil && u.key != "" && u.face.engine.HasIdempotencyKey(u.r.Context(), u.asked.Owner, u.key) {
		return nil
	}
	return err
}

// request is all that was asked.
func (u *upload) request() (engine.Request, error) {
	if u.text == nil {
		return engine.Request{}, job.Errorf(job.Invalid, "the part %s is missing: it says what is to be done, such as {\"queue\": \"ocr\"}", jobPart)
	}
	req := u.asked
	req.ID, req.Files = u.stage.ID(), u.stage.Files()
	if u.key != "" {
		req.IdempotencyKey, req.Hash = u.key, hashOf(u.text, req.Files)
	}
	return req, nil
}

// hashOf is the hash of all that was asked: the bytes of the part job, and of each
// file what it is called, what it is said to be, and its own hash.
func hashOf(text []byte, list []job.File) (sum [32]byte) {
	h := sha256.New()
	add := func(s string) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s))) // a hash takes everything
		_, _ = io.WriteString(h, s)
	}
	add(formType)
	add(string(text))
	for _, f := range list {
		add(f.Name)
		add(f.ContentType)
		add(f.SHA256)
	}
	h.Sum(sum[:0])
	return sum
}

// allowance reads a body, and no more of it than it is allowed.
type allowance struct {
	from io.Reader // set once
	left int64
}

func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, job.Errorf(job.TooLarge, "there are more than %d bytes around a part's content: shorten its headers", maxHeaders)
	}
	n, err := a.from.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	return n, err
}
