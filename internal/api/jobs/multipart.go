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
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Limits of a submit with files. The files have limits of their own.
const (
	formType    = "multipart/form-data"
	jobPart     = "job"    // the part with the JSON of the submit
	maxHeaders  = 64 << 10 // bytes before, between and after the contents of parts, each
	maxBoundary = 70       // characters (RFC 2046, section 5.1.1)
	maxType     = 255      // bytes of a file's content type
)

func isForm(r *http.Request) bool {
	text := r.Header.Get("Content-Type")
	// Nearly every submit is JSON and need not be parsed.
	if len(text) < len(formType) || !strings.EqualFold(text[:len(formType)], formType) {
		return false
	}
	kind, _, _ := mime.ParseMediaType(text)
	return kind == formType
}

// submitForm stores a job with files from multipart/form-data (RFC 7578): a part "job" and a
// part for each file, in any order. The files are on disk before the job is.
func (a *API) submitForm(w http.ResponseWriter, r *http.Request, p api.Prefer) error {
	req, err := a.receiveForm(w, r)
	if err != nil {
		return err
	}
	snap, existing, err := a.storeWithFiles(r, req)
	if err == nil && p.Wait > 0 && !snap.State.Ended() {
		later, waited := longPoll(a, r, p.Wait, func(ctx context.Context, wait time.Duration) (engine.Snapshot, error) {
			return a.engine.Wait(ctx, req.Owner, snap.ID, wait)
		})
		// The job is stored even if the wait fails. The response has its state at the submit.
		if waited == nil {
			snap = later
		}
	}
	if err != nil {
		return err
	}
	a.writeSubmitted(w, r, p, engine.SubmitResult{Snapshot: snap, Existing: existing})
	return nil
}

// storeWithFiles submits a job whose files were received. It goes on when the client leaves,
// because only the engine's answer tells whether the files belong to a job.
func (a *API) storeWithFiles(r *http.Request, req engine.Request) (engine.Snapshot, bool, error) {
	snap, existing, err := a.engine.Submit(context.WithoutCancel(r.Context()), req)
	// A repeated submit keeps the files of the first one.
	if existing && snap.ID != req.ID || isRefusal(err) {
		a.files.Remove(req.ID)
	}
	return snap, existing, atInput(err)
}

// isRefusal reports whether the engine certainly stored no job. After any other error the
// files stay, and the next start of the server removes those without a job.
func isRefusal(err error) bool {
	code := job.CodeOf(err)
	return err != nil && code != job.Unavailable && code != job.Internal
}

// receiveForm reads and checks a whole submit with files. The files of a refused one are
// removed.
func (a *API) receiveForm(w http.ResponseWriter, r *http.Request) (engine.Request, error) {
	u := &upload{api: a, r: r}
	if err := u.checkHeaders(w); err != nil {
		return engine.Request{}, err
	}
	defer u.bodyReader.Close()
	caller := gate.BudgetOf(r)
	if err := a.uploads.begin(caller); err != nil {
		return engine.Request{}, err
	}
	defer a.uploads.end(caller)
	u.stage = a.files.Stage(job.NewID())
	defer u.stage.Discard()
	if err := u.readParts(); err != nil {
		return engine.Request{}, err
	}
	req, err := u.finishRequest()
	if err != nil {
		return engine.Request{}, err
	}
	return req, u.stage.Commit(r.Context())
}

// upload is a submit with files that is being received. One goroutine uses it.
type upload struct {
	// set once
	api        *API
	r          *http.Request
	key        string // the idempotency key, or ""
	bodyReader *api.Upload
	body       *limitedBody
	parts      *multipart.Reader
	stage      *files.Stage

	jobText []byte // of the part job; nil before that has arrived
	request engine.Request
	queue   engine.Queue
}

// checkHeaders checks the headers before any of the body is read.
func (u *upload) checkHeaders(w http.ResponseWriter) (err error) {
	_, params, err := mime.ParseMediaType(u.r.Header.Get("Content-Type"))
	boundary := params["boundary"]
	if err != nil || boundary == "" || len(boundary) > maxBoundary {
		return job.Errorf(job.Invalid, "the Content-Type %s needs a boundary of 1 to %d characters", formType, maxBoundary)
	}
	if u.key, err = api.IdempotencyKey(u.r.Header); err != nil {
		return err
	}
	if limit := u.api.files.MaxJob() + u.api.maxBody + (job.MaxFiles+3)*maxHeaders; u.r.ContentLength > limit {
		return job.Errorf(job.TooLarge, "the body is larger than the files of a job may be together, which is %d bytes", u.api.files.MaxJob())
	}
	u.bodyReader = u.api.timeouts.Upload(w, u.r)
	u.body = &limitedBody{from: u.bodyReader}
	u.parts = multipart.NewReader(u.body, boundary)
	return nil
}

// readParts reads the parts one by one, to the end of the body.
func (u *upload) readParts() error {
	for {
		u.body.left = maxHeaders
		p, err := u.parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // io.EOF itself follows the last boundary; a wrapped one is a broken body
			// The bytes after the last boundary mean nothing, but only after the end of the body
			// does net/http notice that the client leaves.
			u.body.left = maxHeaders
			_, err := io.Copy(io.Discard, u.body)
			return err
		}
		if err == nil {
			u.body.left = math.MaxInt64
			err = u.readPart(p)
		}
		if err != nil {
			return formError(err)
		}
	}
}

// formError returns the error for a body that cannot be parsed. It returns a [job.Error] in
// err's chain unchanged.
func formError(err error) error {
	if e, ok := errors.AsType[*job.Error](err); ok {
		return e
	}
	return job.Wrapf(job.Invalid, err, "the body is not the %s that its Content-Type says, or ended too early", formType)
}

// readPart checks and reads one part: the job or a file.
func (u *upload) readPart(p *multipart.Part) error {
	fileName := fileNameOf(p.Header.Get("Content-Disposition"))
	switch name := p.FormName(); {
	case name == "":
		return job.Errorf(job.Invalid, "a part has no name: each is to have Content-Disposition: form-data with a name")
	case !isPlainEncoding(p.Header.Get("Content-Transfer-Encoding")):
		return job.Errorf(job.Invalid, "the part %s has a Content-Transfer-Encoding: send its bytes as they are", job.Quote(name))
	case name == jobPart && u.jobText != nil:
		return job.Errorf(job.Invalid, "there are two parts %s; a request submits one job", jobPart)
	case name == jobPart:
		return u.readJob(p)
	case fileName == "":
		return job.Errorf(job.Invalid, "the part %s is no file, for it has no filename; what the job is to work on stands in the part %s", job.Quote(name), jobPart)
	}
	if err := u.checkFilesAllowed(1); err != nil {
		return err
	}
	_, err := u.stage.Receive(u.r.Context(), fileName, contentTypeOf(p), p)
	return err
}

func isPlainEncoding(name string) bool {
	switch name {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// contentTypeOf returns the content type of a part, or application/octet-stream where that
// is missing, invalid or too long.
func contentTypeOf(p *multipart.Part) string {
	kind, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
	if text := mime.FormatMediaType(kind, params); err == nil && text != "" && len(text) <= maxType {
		return text
	}
	return "application/octet-stream"
}

// readJob reads the part job. It checks the part completely before the files after it are
// received.
func (u *upload) readJob(p *multipart.Part) (err error) {
	if u.jobText, err = api.AllowanceOf(u.r).ReadAll(p, -1, u.api.maxBody); err != nil {
		if job.CodeOf(err) == job.TooLarge {
			return job.Wrapf(job.TooLarge, err, "the part %s is larger than the %d bytes that this call takes", jobPart, u.api.maxBody)
		}
		return err
	}
	if u.request, err = u.api.decodeSubmission(u.r, u.jobText, submission{Input: []byte("null")}); err != nil {
		return err
	}
	if u.queue, err = u.api.engine.Queue(u.request.Queue); err != nil {
		return err
	}
	if err := u.checkFilesAllowed(len(u.stage.Files())); err != nil {
		return err
	}
	return u.checkCapacity()
}

// checkFilesAllowed refuses files for a queue whose executor cannot use them. It passes while
// the queue is not known.
func (u *upload) checkFilesAllowed(n int) error {
	if u.jobText == nil || n == 0 || u.queue.Files {
		return nil
	}
	return refuse("/queue", "the queue %s takes no files: its executor is %s", u.queue.Name, u.queue.Executor)
}

// checkCapacity refuses a job for which its queue has no capacity, before its files arrive. It
// goes by the bytes so far and by the declared length. It does not refuse a repeated submit.
func (u *upload) checkCapacity() error {
	size := max(u.stage.Bytes(), u.r.ContentLength-int64(len(u.jobText))-maxHeaders) + int64(len(u.request.Input))
	err := u.api.engine.CheckCapacity(u.request.Queue, size)
	if err != nil && u.key != "" && u.api.engine.HasIdempotencyKey(u.r.Context(), u.request.Owner, u.key) {
		return nil
	}
	return err
}

// finishRequest returns the request with its files.
func (u *upload) finishRequest() (engine.Request, error) {
	if u.jobText == nil {
		return engine.Request{}, job.Errorf(job.Invalid, "the part %s is missing: it says what is to be done, such as {\"queue\": \"ocr\"}", jobPart)
	}
	req := u.request
	req.ID, req.Files = u.stage.ID(), u.stage.Files()
	if u.key != "" {
		req.IdempotencyKey, req.Hash = u.key, hashForm(u.jobText, req.Files)
	}
	return req, nil
}

// hashForm returns the hash of a whole submit: of the part job, and of each file's name,
// content type and hash. Each text comes after its length, so that no two submits with
// different parts have the same hash.
func hashForm(text []byte, list []job.File) (sum [32]byte) {
	h := sha256.New()
	add := func(s string) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s))) // a hash returns no errors
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

// limitedBody reads a body up to a limit that readParts sets anew for each part: maxHeaders
// between the parts' contents, none inside them.
type limitedBody struct {
	from io.Reader // set once
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, job.Errorf(job.TooLarge, "there are more than %d bytes around a part's content: shorten its headers", maxHeaders)
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
