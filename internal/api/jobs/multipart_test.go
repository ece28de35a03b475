package jobs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/openapi/openapitest"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/files"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// formEngine is the API over a fake engine whose queue sim accepts files, with a real
// directory for the files.
type formEngine struct {
	*fake
	root    string
	dir     *files.Dir
	handler http.Handler
}

func newFormEngine(t testing.TB, o files.Options) *formEngine {
	t.Helper()
	f := &formEngine{fake: newFake(t), root: filepath.Join(t.TempDir(), "files")}
	var err error
	if f.dir, err = files.Open(f.root, o); err != nil {
		t.Fatal(err)
	}
	mux := gate.NewMux()
	New(Config{Engine: f, Files: f.dir}).Register(mux)
	f.handler = (&gate.Gate{Listen: []string{"127.0.0.1:8080"}}).Handler(mux)
	return f
}

func (f *formEngine) Queue(name string) (engine.Queue, error) {
	if name == "plain" {
		return engine.Queue{Name: "plain", Executor: "llm"}, nil
	}
	q, err := f.fake.Queue(name)
	q.Files = true
	return q, err
}

// Submit returns the submitted job, as the engine does.
func (f *formEngine) Submit(ctx context.Context, r engine.Request) (engine.Snapshot, bool, error) {
	snap, existing, err := f.fake.Submit(ctx, r)
	if !existing && err == nil {
		snap.ID, snap.Files = r.ID, r.Files
	}
	return snap, existing, err
}

// checkedHandler is the API with its responses checked against the description.
func (f *formEngine) checkedHandler() http.Handler { return openapitest.CheckHandler(f.t, f.handler) }

// post submits a form.
func (f *formEngine) post(body io.Reader, kind string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/v1/jobs", body)
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:5000"
	r.Header.Set("Content-Type", kind)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.checkedHandler().ServeHTTP(w, r)
	return w
}

// jobDirs returns the directories of jobs.
func (f *formEngine) jobDirs(t testing.TB) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(f.root)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// part is one part of a form.
type part struct {
	name, file, kind, text string
	headers                []string // additional headers, in pairs
}

// minimalJobPart is the shortest valid part job.
var minimalJobPart = part{name: "job", text: `{"queue":"sim","input":{"a":1}}`}

const boundary = "b0undary"

// encodeForm returns a body with the parts, and its Content-Type.
func encodeForm(parts ...part) (body *bytes.Buffer, kind string) {
	body = new(bytes.Buffer)
	w := multipart.NewWriter(body)
	_ = w.SetBoundary(boundary)
	for _, p := range parts {
		h := textproto.MIMEHeader{}
		h.Set("Content-Disposition", p.disposition())
		if p.kind != "" {
			h.Set("Content-Type", p.kind)
		}
		for i := 0; i+1 < len(p.headers); i += 2 {
			h.Set(p.headers[i], p.headers[i+1])
		}
		to, _ := w.CreatePart(h)
		_, _ = io.WriteString(to, p.text)
	}
	_ = w.Close()
	return body, w.FormDataContentType()
}

func (p part) disposition() string {
	text := "form-data"
	if p.name != "" {
		text += fmt.Sprintf(`; name="%s"`, p.name)
	}
	if p.file != "" {
		text += fmt.Sprintf(`; filename="%s"`, strings.ReplaceAll(p.file, `"`, `\"`))
	}
	return text
}

func TestFormReachesEngineComplete(t *testing.T) {
	t.Parallel()
	page := part{name: "page", file: "scan.png", kind: "image/png", text: "\x89PNG\r\n--b0undar"}
	more := part{name: "page", file: "dir/two.txt", text: ""}
	for rule, parts := range map[string][]part{
		"the job first":         {minimalJobPart, page, more},
		"the job last":          {page, more, minimalJobPart},
		"the job in the middle": {page, minimalJobPart, more},
	} {
		f := newFormEngine(t, files.Options{})
		body, kind := encodeForm(parts...)
		w := f.post(body, kind, "X-User-ID", "ann", "Idempotency-Key", "once")
		id := f.request.ID
		want := engine.Request{
			ID: id, Owner: job.Owner{User: "ann"}, Queue: "sim", Input: []byte(`{"a":1}`), IdempotencyKey: "once", Hash: f.request.Hash,
			Files: []job.File{
				{Name: "scan.png", ContentType: "image/png", Size: 15, SHA256: "b1f9eb2ba5ecfba9ba3a93a3d51d5bf2b9a1ac5d2c7a4fdf3a2ab0ef2a0f3a70"},
				{Name: "two.txt", ContentType: "application/octet-stream", SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
			},
		}
		if len(f.request.Files) == 2 {
			want.Files[0].SHA256 = f.request.Files[0].SHA256 // package files computes the hash, and tests it
		}
		if !reflect.DeepEqual(f.request, want) || w.Code != 202 || w.Header().Get("Location") != selfURL(id) {
			t.Errorf("%s: %d %s\n%+v", rule, w.Code, w.Body, f.request)
		}
		got, err := os.ReadFile(filepath.Join(f.root, id.String(), "scan.png"))
		if err != nil || string(got) != page.text {
			t.Errorf("%s: there is %q, %v", rule, got, err)
		}
	}
}

func TestFormInputIsOptional(t *testing.T) {
	t.Parallel()
	f := newFormEngine(t, files.Options{})
	body, kind := encodeForm(part{name: "job", file: "job.json", text: `{"queue":"sim"}`}, part{name: "p", file: "a", text: "x"})
	if w := f.post(body, kind); w.Code != 202 || string(f.request.Input) != "null" {
		t.Errorf("%d %s, %q", w.Code, w.Body, f.request.Input)
	}
	body, kind = encodeForm(part{name: "job", text: `{"queue":"plain"}`})
	if w := f.post(body, kind); w.Code != 202 || len(f.request.Files) != 0 || len(f.jobDirs(t)) != 1 {
		t.Errorf("without files: %d %s", w.Code, w.Body)
	}
}

// A refused form stores nothing and leaves no file, wherever its fault is.
func TestRefusedFormLeavesNoFiles(t *testing.T) {
	t.Parallel()
	file := part{name: "p", file: "a.txt", text: "x"}
	many := func(n int) (parts []part) {
		for i := range n {
			parts = append(parts, part{name: "p", file: fmt.Sprint("f", i), text: "x"})
		}
		return parts
	}
	small, hundred := files.Options{MaxFile: 100}, strings.Repeat("x", 100)
	for rule, tt := range map[string]struct {
		options files.Options
		parts   []part
		code    job.Code
		says    string
	}{
		"no parts":                            {parts: nil, code: job.Invalid, says: "missing"},
		"no job":                              {parts: []part{file}, code: job.Invalid, says: "the part job is missing"},
		"two jobs":                            {parts: []part{minimalJobPart, file, minimalJobPart}, code: job.Invalid, says: "two parts job"},
		"a job that is not JSON":              {parts: []part{file, {name: "job", text: "queue=sim"}}, code: job.Invalid},
		"an empty job":                        {parts: []part{file, {name: "job"}}, code: job.Invalid},
		"a job that is too large":             {parts: []part{{name: "job", text: strings.Repeat(" ", job.MaxInput+job.MaxEnvelope) + "{}"}}, code: job.TooLarge, says: "the part job"},
		"an unknown queue":                    {parts: []part{file, {name: "job", text: `{"queue":"x"}`}}, code: job.UnknownQueue},
		"a queue without files":               {parts: []part{{name: "job", text: `{"queue":"plain"}`}, file}, code: job.Invalid, says: "the queue plain takes no files"},
		"a queue without files, the job last": {parts: []part{file, {name: "job", text: `{"queue":"plain"}`}}, code: job.Invalid, says: "the queue plain takes no files"},
		"an unknown field":                    {parts: []part{file, {name: "job", text: `{"queue":"sim","x":1}`}}, code: job.Invalid},
		"a key in the job":                    {parts: []part{file, {name: "job", text: `{"queue":"sim","idempotency_key":"k"}`}}, code: job.Invalid},
		"a part without a name":               {parts: []part{minimalJobPart, {file: "a", text: "x"}}, code: job.Invalid, says: "has no name"},
		"a part that is not a file":           {parts: []part{minimalJobPart, file, {name: "input", text: "x"}}, code: job.Invalid, says: "is no file"},
		"two files with one name":             {parts: []part{minimalJobPart, file, {name: "q", file: "x/a.txt"}}, code: job.Invalid, says: "two files"},
		"an invalid file name":                {parts: []part{minimalJobPart, {name: "p", file: ".."}}, code: job.Invalid, says: "not a valid file name"},
		"a name that is too long":             {parts: []part{minimalJobPart, {name: "p", file: strings.Repeat("n", 256)}}, code: job.Invalid, says: "255"},
		"33 files":                            {parts: append(many(33), minimalJobPart), code: job.TooLarge, says: "32"},
		"a file that is too large":            {options: small, parts: []part{minimalJobPart, {name: "p", file: "a", text: hundred + "x"}}, code: job.TooLarge},
		"files that are too large together":   {options: small, parts: []part{minimalJobPart, {name: "p", file: "a", text: hundred}, {name: "p", file: "b", text: hundred}, file}, code: job.TooLarge, says: "together"},
		"headers that are too large":          {parts: []part{minimalJobPart, {name: "p", file: "a", headers: []string{"X-Long", strings.Repeat("x", 2*maxHeaders)}}}, code: job.TooLarge, says: "headers"},
		"a transfer encoding":                 {parts: []part{minimalJobPart, {name: "p", file: "a", headers: []string{"Content-Transfer-Encoding", "base64"}}}, code: job.Invalid, says: "as they are"},
		"a full disk":                         {options: files.Options{KeepFree: 1 << 60}, parts: []part{minimalJobPart, file}, code: job.NoSpace},
		"too many staged bytes":               {options: files.Options{MaxStaged: 1}, parts: []part{minimalJobPart, file, {name: "p", file: "b", text: "y"}}, code: job.Overloaded},
	} {
		t.Run(rule, func(t *testing.T) {
			f := newFormEngine(t, tt.options)
			body, kind := encodeForm(tt.parts...)
			w := f.post(body, kind)
			checkProblem(t, rule, w.Code, w.Body.Bytes(), api.StatusOf(tt.code), tt.code, anyField)
			if !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("the problem is %s", w.Body)
			}
			if left := f.jobDirs(t); len(left) != 0 || len(f.calls) != 0 {
				t.Errorf("left are %v, the engine was called with %v", left, f.calls)
			}
		})
	}
}

// A body that is not a form is refused with an explanation.
func TestMalformedFormIsRefused(t *testing.T) {
	t.Parallel()
	whole, _ := encodeForm(minimalJobPart, part{name: "p", file: "a", text: strings.Repeat("x", 1000)})
	kind := "multipart/form-data; boundary=" + boundary
	for rule, tt := range map[string]struct {
		body, kind string
		code       job.Code
	}{
		"no boundary":         {whole.String(), "multipart/form-data", job.Invalid},
		"a long boundary":     {whole.String(), "multipart/form-data; boundary=" + strings.Repeat("b", 71), job.Invalid},
		"another boundary":    {whole.String(), "multipart/form-data; boundary=other", job.Invalid},
		"another media type":  {whole.String(), "multipart/mixed; boundary=" + boundary, api.UnsupportedMediaType},
		"empty":               {"", kind, job.Invalid},
		"JSON":                {`{"queue":"sim","input":1}`, kind, job.Invalid},
		"cut in a file":       {whole.String()[:whole.Len()-100], kind, job.Invalid},
		"cut in a header":     {whole.String()[:200], kind, job.Invalid},
		"no closing boundary": {strings.TrimSuffix(whole.String(), "--\r\n"), kind, job.Invalid},
		"a long preamble":     {strings.Repeat("x\r\n", maxHeaders) + whole.String(), kind, job.TooLarge},
		"a long epilogue":     {whole.String() + strings.Repeat("x", 2*maxHeaders), kind, job.TooLarge},
		"an endless header":   {"--" + boundary + "\r\nX: " + strings.Repeat("x", 2*maxHeaders), kind, job.TooLarge},
	} {
		t.Run(rule, func(t *testing.T) {
			f := newFormEngine(t, files.Options{})
			w := f.post(strings.NewReader(tt.body), tt.kind)
			checkProblem(t, rule, w.Code, w.Body.Bytes(), api.StatusOf(tt.code), tt.code, "")
			if left := f.jobDirs(t); len(left) != 0 || len(f.calls) != 0 {
				t.Errorf("left are %v, the engine was called with %v", left, f.calls)
			}
		})
	}
}

// When the engine refuses the job, its files are removed. When the outcome is unknown,
// they stay.
func TestFilesOfUnstoredJobsAreRemoved(t *testing.T) {
	t.Parallel()
	for rule, tt := range map[string]struct {
		err      error
		existing bool
		status   int
		left     int
	}{
		"stored":                   {nil, false, 202, 1},
		"a known key":              {nil, true, 202, 0},
		"a full queue":             {job.Errorf(job.QueueFull, "full"), false, 503, 0},
		"a key of another request": {job.Errorf(job.IdempotencyMismatch, "another"), false, 422, 0},
		"a server that stops":      {job.Errorf(job.ShuttingDown, "stopping"), false, 503, 0},
		"a disk that failed":       {job.Errorf(job.Unavailable, "unknown"), false, 503, 1},
		"a defect":                 {errors.New("unknown"), false, 500, 1},
	} {
		f := newFormEngine(t, files.Options{})
		f.err, f.existing = tt.err, tt.existing
		body, kind := encodeForm(minimalJobPart, part{name: "p", file: "a", text: "x"})
		w := f.post(body, kind)
		if left := f.jobDirs(t); w.Code != tt.status || len(left) != tt.left {
			t.Errorf("%s: %d %s, left are %v", rule, w.Code, w.Body, left)
		}
		if replay := w.Header().Get("Idempotent-Replay") == "true"; replay != tt.existing {
			t.Errorf("%s: replay: %v", rule, replay)
		}
	}
}

// A repeated request has the same hash for any split into packets. A request with another file
// has another hash.
func TestFormHashCoversFiles(t *testing.T) {
	t.Parallel()
	file := part{name: "p", file: "a", kind: "text/plain", text: "x"}
	hash := func(parts ...part) [32]byte {
		f := newFormEngine(t, files.Options{})
		body, kind := encodeForm(parts...)
		if w := f.post(body, kind, "Idempotency-Key", "k"); w.Code != 202 {
			t.Fatal(w.Body)
		}
		return f.request.Hash
	}
	first := hash(minimalJobPart, file)
	if again := hash(minimalJobPart, file); again != first || first == ([32]byte{}) {
		t.Error("the same request has another hash")
	}
	if last := hash(file, minimalJobPart); last != first {
		t.Error("the place of the job changes the hash")
	}
	for rule, parts := range map[string][]part{
		"no file":      {minimalJobPart},
		"other bytes":  {minimalJobPart, {name: "p", file: "a", kind: "text/plain", text: "y"}},
		"another name": {minimalJobPart, {name: "p", file: "b", kind: "text/plain", text: "x"}},
		"another type": {minimalJobPart, {name: "p", file: "a", kind: "text/html", text: "x"}},
		"one more":     {minimalJobPart, file, {name: "p", file: "b", kind: "text/plain", text: "x"}},
		"another job":  {{name: "job", text: minimalJobPart.text + " "}, file},
	} {
		if hash(parts...) == first {
			t.Errorf("%s has the same hash", rule)
		}
	}
}

// A queue without capacity refuses a submit before the files are sent, but not a repeated
// submit.
func TestCapacityIsCheckedBeforeFiles(t *testing.T) {
	t.Parallel()
	body, kind := encodeForm(minimalJobPart, part{name: "p", file: "a", text: strings.Repeat("x", 200<<10)})
	for rule, tt := range map[string]struct {
		key    string
		length int64
		size   int64 // the approximate size that was checked
		status int
	}{
		"with a length":    {"", int64(body.Len()), 136 << 10, 503},
		"without a length": {"", -1, 7, 503},
		"with a new key":   {"new", int64(body.Len()), 136 << 10, 503},
		"with a known key": {"known", int64(body.Len()), 136 << 10, 202},
	} {
		f := newFormEngine(t, files.Options{})
		f.capacityErr, f.existingKey = job.Errorf(job.QueueFull, "full"), "known"
		read := &countingBody{from: bytes.NewReader(body.Bytes())}
		r := httptest.NewRequest("POST", "/v1/jobs", read)
		r.Host, r.RemoteAddr, r.ContentLength = "127.0.0.1:8080", "127.0.0.1:5000", tt.length
		r.Header.Set("Content-Type", kind)
		if tt.key != "" {
			r.Header.Set("Idempotency-Key", tt.key)
		}
		w := httptest.NewRecorder()
		f.checkedHandler().ServeHTTP(w, r)
		if w.Code != tt.status || f.size < tt.size || f.size > tt.size+(1<<10) {
			t.Errorf("%s: %d %s, capacity for %d", rule, w.Code, w.Body, f.size)
		}
		if early := read.n < 8<<10; early != (tt.status == 503) {
			t.Errorf("%s: %d bytes were read", rule, read.n)
		}
	}
}

type countingBody struct {
	from io.Reader
	n    int
}

func (c *countingBody) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += n
	return n, err
}

// A body whose declared length is too large is not read at all.
func TestTooLargeFormIsRefusedUnread(t *testing.T) {
	t.Parallel()
	f := newFormEngine(t, files.Options{MaxFile: 1 << 20})
	form, kind := encodeForm(minimalJobPart)
	body := &countingBody{from: form}
	r := httptest.NewRequest("POST", "/v1/jobs", body)
	r.Host, r.RemoteAddr, r.ContentLength = "127.0.0.1:8080", "127.0.0.1:5000", 1<<30
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	f.checkedHandler().ServeHTTP(w, r)
	if w.Code != 413 || body.n != 0 {
		t.Errorf("%d %s after %d bytes", w.Code, w.Body, body.n)
	}
}

func (c *countingBody) Close() error { return nil }

// One caller leaves uploads to others. The last of too many concurrent uploads is refused. The
// end of any upload makes another one possible.
func TestConcurrentUploadsAreLimited(t *testing.T) {
	t.Parallel()
	f := newFormEngine(t, files.Options{})
	body, kind := encodeForm(minimalJobPart, part{name: "p", file: "a", text: "x"})
	ends := make(chan *httptest.ResponseRecorder)
	var senders []*io.PipeWriter
	for i := range maxUploads {
		user := "ann"
		if i >= maxCallerUploads {
			user = "bob"
		}
		r, w := io.Pipe()
		senders = append(senders, w)
		go func() { ends <- f.post(r, kind, "X-User-ID", user) }()
		if _, err := w.Write(body.Bytes()[:10]); err != nil { // an upload in progress has read this
			t.Fatal(err)
		}
	}
	w := f.post(bytes.NewReader(body.Bytes()), kind, "X-User-ID", "ann")
	checkProblem(t, "one too many of a caller", w.Code, w.Body.Bytes(), 429, api.CallerBusy, "")
	w = f.post(bytes.NewReader(body.Bytes()), kind, "X-User-ID", "cid")
	checkProblem(t, "one too many", w.Code, w.Body.Bytes(), 503, job.Overloaded, "")
	for _, s := range senders {
		s.CloseWithError(io.ErrUnexpectedEOF)
		if w := <-ends; w.Code != 400 {
			t.Errorf("an upload that was cut off: %d %s", w.Code, w.Body)
		}
	}
	if w := f.post(bytes.NewReader(body.Bytes()), kind); w.Code != 202 {
		t.Errorf("with capacity again: %d %s", w.Code, w.Body)
	}
	if left := f.jobDirs(t); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

// A connection that breaks in the middle of a file leaves nothing.
func TestInterruptedUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFormEngine(t, files.Options{})
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		f.checkedHandler().ServeHTTP(w, r)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, kind := encodeForm(minimalJobPart, part{name: "p", file: "a", text: strings.Repeat("x", 1<<20)})
	w := bufio.NewWriter(conn)
	fmt.Fprintf(w, "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", kind, body.Len())
	_, _ = w.Write(body.Bytes()[:body.Len()/2])
	if err := errors.Join(w.Flush(), conn.Close()); err != nil {
		t.Fatal(err)
	}
	<-ended
	if left := f.jobDirs(t); len(left) != 0 || len(f.calls) != 0 {
		t.Errorf("left are %v, the engine was called with %v", left, f.calls)
	}
}

// The response has the stored job even when the wait for its end fails.
func TestStoredFormIsAnsweredWhenWaitFails(t *testing.T) {
	t.Parallel()
	for _, meets := range []error{
		job.Errorf(job.NotFound, "there is no such job"), job.Errorf(job.Overloaded, "too many watchers"), context.Canceled,
	} {
		f := newFormEngine(t, files.Options{})
		f.waits = func(context.Context) error { return meets }
		body, kind := encodeForm(minimalJobPart, part{name: "p", file: "a", text: "x"})
		if w := f.post(body, kind, "Prefer", "wait=5"); w.Code != 202 || len(f.jobDirs(t)) != 1 {
			t.Errorf("%v: %d %s, left are %v", meets, w.Code, w.Body, f.jobDirs(t))
		}
	}
}

// A large upload is never in memory as a whole.
func TestLargeUploadTakesLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads 64 MiB")
	}
	const size = 64 << 20
	f := newFormEngine(t, files.Options{})
	small, kind := encodeForm(minimalJobPart, part{name: "p", file: "small", text: "x"})
	if w := f.post(small, kind); w.Code != 202 { // the first upload prepares statements
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	head, kind := encodeForm(minimalJobPart, part{name: "p", file: "large", text: "|"})
	before, after, _ := strings.Cut(head.String(), "|")
	body := io.MultiReader(strings.NewReader(before), io.LimitReader(endlessReader{}, size), strings.NewReader(after))
	var then, now runtime.MemStats
	runtime.ReadMemStats(&then)
	w := f.post(body, kind)
	runtime.ReadMemStats(&now)
	if w.Code != 202 || f.request.Files[0].Size != size {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if took := now.TotalAlloc - then.TotalAlloc; took > 4<<20 {
		t.Errorf("it took %d bytes of memory", took)
	}
}

type endlessReader struct{}

func (endlessReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// Any body is stored completely or not at all, and no file is written outside its
// directory.
func FuzzForm(f *testing.F) {
	for _, parts := range [][]part{
		{minimalJobPart},
		{minimalJobPart, {name: "p", file: "../../etc/passwd", text: "x"}},
		{{name: "p", file: "CON", kind: "image/png", text: "x"}, minimalJobPart},
		{minimalJobPart, {name: "p", file: "a", text: "x"}, {name: "p", file: "A", text: "y"}},
		{minimalJobPart, minimalJobPart},
		{{file: "a"}},
		{minimalJobPart, {name: "p", file: "a", headers: []string{"Content-Transfer-Encoding", "quoted-printable"}, text: "=00"}},
	} {
		body, _ := encodeForm(parts...)
		f.Add(body.Bytes())
	}
	f.Add([]byte("--" + boundary + "\nContent-Disposition: form-data; name=job\n\n{\"queue\":\"sim\"}\n--" + boundary + "--"))
	f.Add([]byte("--" + boundary + "\r\nContent-Disposition: form-data; name=p; filename*=UTF-8''a%00%2f..\r\n\r\n\r\n--" + boundary + "--\r\n"))
	s := newFormEngine(f, files.Options{MaxFile: 1 << 20})
	f.Fuzz(func(t *testing.T, body []byte) {
		s.t, s.calls, s.request = t, nil, engine.Request{}
		w := s.post(bytes.NewReader(body), "multipart/form-data; boundary="+boundary)
		left := s.jobDirs(t)
		switch {
		case w.Code == 202:
			s.check(t)
		case w.Code >= 500 || w.Code < 400:
			t.Errorf("%d %s", w.Code, w.Body)
		case len(left) != 0 || len(s.calls) != 0:
			t.Errorf("refused with %d, left are %v", w.Code, left)
		}
		if outside, err := os.ReadDir(filepath.Dir(s.root)); err != nil || len(outside) != 1 {
			t.Errorf("outside the directory are %v, %v", outside, err)
		}
		s.dir.Remove(s.request.ID)
	})
}

// check compares the files on the disk with the jobs that the engine has.
func (f *formEngine) check(t *testing.T) {
	for _, file := range f.request.Files {
		info, err := os.Stat(f.dir.Path(f.request.ID, file))
		if err != nil || info.Size() != file.Size {
			t.Errorf("%+v is %v, %v", file, info, err)
		}
	}
	if left := f.jobDirs(t); len(left) > 1 || len(left) == 0 && len(f.request.Files) > 0 {
		t.Errorf("left are %v", left)
	}
}
