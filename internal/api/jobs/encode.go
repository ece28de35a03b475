package jobs

import (
	"encoding/json"
	"maps"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const jobsURL = "/v1/jobs/"

func selfURL(id job.ID) string { return job.UUID(id).Text(jobsURL + "job_") }

// writeJSON writes a JSON body that build appends to a pooled buffer.
func (a *API) writeJSON(w http.ResponseWriter, status int, build func([]byte) []byte) {
	pooled := a.buffers.Get()
	body := build(*pooled)
	api.WriteJSONBytes(w, status, body)
	a.buffers.Put(pooled, body)
}

// writeLongJSON is writeJSON for a body that may be long. It counts for the caller while its
// client reads it.
func (a *API) writeLongJSON(w http.ResponseWriter, r *http.Request, build func([]byte) []byte) error {
	pooled := a.buffers.Get()
	body := build(*pooled)
	defer func() { a.buffers.Put(pooled, body) }()
	release, err := a.gate.ReserveResponse(gate.BudgetOf(r), len(body))
	if err != nil {
		return err
	}
	defer release()
	setNoStore(w)
	api.WriteJSONBytes(w, http.StatusOK, body)
	return nil
}

// writeJob writes a job. watch is its watch URL, or "".
func (a *API) writeJob(w http.ResponseWriter, r *http.Request, status int, snap *engine.Snapshot, watch string) {
	caller := gate.CallerFrom(r)
	a.writeJSON(w, status, func(b []byte) []byte { return appendJobFor(caller, b, &snap.Job, snap, watch) })
}

// watchURL returns a URL at which a browser can follow a job without other credentials, with
// the options of the Prefer header. It is "" for a request that came with such a URL, and for a
// caller that may not do itself what the URL allows.
func (a *API) watchURL(r *http.Request, p api.Prefer, j *job.Job) string {
	c := gate.CallerFrom(r)
	if !c.Can(access.Read) || p.WatchCancel && !c.Can(access.Cancel) {
		return ""
	}
	g := gate.Grant{Owner: j.Owner, Job: j.ID}
	if p.WatchCancel {
		g.Rights = gate.MayCancel
	}
	if p.WatchTTL > 0 {
		g.Expires = time.Now().Add(p.WatchTTL)
	}
	return a.gate.WatchURL(r, g, jobsURL, "/events")
}

// appendJobFor appends the job object for a caller. One that may not read payloads gets it without
// its text, result, files and messages.
func appendJobFor(c *gate.Caller, b []byte, j *job.Job, snap *engine.Snapshot, watch string) []byte {
	if c.Can(access.Read) {
		return appendJob(b, j, snap, watch)
	}
	hidden := *j
	hidden.Files, hidden.Progress.Status = nil, ""
	if j.Failure != nil {
		failure := *j.Failure
		failure.Message = ""
		hidden.Failure = &failure
	}
	if snap != nil {
		s := *snap
		s.Text, s.Result = "", nil
		snap = &s
	}
	return appendJob(b, &hidden, snap, watch)
}

// appendJob appends the job object. snap adds the position in the queue, the text so far and
// the result. It is nil in lists and in the snapshots of a watch: these fields are then null.
// The watch URL is null where watch is "".
func appendJob(b []byte, j *job.Job, snap *engine.Snapshot, watch string) []byte {
	b = j.ID.Append(append(b, `{"id":"`...))
	b = appendString(append(b, `","object":"job","queue":`...), j.Queue)
	b = appendString(append(b, `,"status":`...), j.State.String())
	b = appendString(append(b, `,"key":`...), j.Key)
	b = strconv.AppendInt(append(b, `,"priority":`...), int64(j.Priority), 10)
	b = strconv.AppendInt(append(b, `,"attempt":`...), int64(j.Attempt), 10)
	b = strconv.AppendInt(append(b, `,"max_attempts":`...), int64(j.MaxAttempts), 10)
	b = appendAbandon(append(b, `,"abandon_after_s":`...), j.Policy.Timeouts.Abandon)
	b = appendPosition(b, j, snap)
	b = appendProgress(append(b, `,"progress":`...), j.Progress)
	b = appendContent(b, j, snap)
	b = appendFailure(append(b, `,"error":`...), j.Failure)
	b = appendValue(append(b, `,"usage":`...), j.Usage)
	b = appendFiles(append(b, `,"files":`...), j.Files)
	b = appendMetadata(append(b, `,"metadata":`...), j.Metadata)
	b = appendTimes(b, j)
	b = appendPoll(append(b, `,"poll_after_ms":`...), j, snap)
	return append(appendURLs(append(b, `,"urls":`...), j.ID, watch), '}')
}

// appendAbandon appends after how many seconds without a request the job is cancelled; null
// for never.
func appendAbandon(b []byte, after time.Duration) []byte {
	if after <= 0 {
		return append(b, "null"...)
	}
	return appendSeconds(b, after)
}

// appendPosition appends the position in the queue, what holds the job back, and the
// estimate.
func appendPosition(b []byte, j *job.Job, snap *engine.Snapshot) []byte {
	b = append(b, `,"queue_position":`...)
	if snap != nil && j.State == job.Queued {
		b = strconv.AppendInt(b, int64(snap.Position), 10)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"held_back_by":`...)
	if snap != nil && snap.HeldBackBy != "" {
		b = appendString(b, string(snap.HeldBackBy))
	} else {
		b = append(b, "null"...)
	}
	if j.Resource != "" {
		b = appendString(append(b, `,"resource":`...), j.Resource)
	}
	b = append(b, `,"estimated_time_seconds":`...)
	if snap != nil && snap.Estimate > 0 {
		return appendSeconds(b, snap.Estimate)
	}
	return append(b, "null"...)
}

// appendContent appends the text so far, the cursor, and the result where it is short JSON.
func appendContent(b []byte, j *job.Job, snap *engine.Snapshot) []byte {
	b = append(b, `,"output_text":`...)
	if snap != nil {
		b = appendString(b, snap.Text)
	} else {
		b = append(b, "null"...)
	}
	b = strconv.AppendInt(append(b, `,"cursor":`...), j.Cursor, 10)
	b = append(b, `,"result":`...)
	if snap != nil && snap.Result != nil && len(snap.Result.Body) <= job.MaxInline && isJSON(snap.Result.ContentType) {
		return appendValue(b, snap.Result.Body)
	}
	return append(b, "null"...)
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

func appendTimes(b []byte, j *job.Job) []byte {
	b = appendTime(append(b, `,"cancel_requested_at":`...), j.CancelRequestedAt)
	b = appendTime(append(b, `,"created_at":`...), j.CreatedAt)
	b = appendTime(append(b, `,"run_at":`...), j.RunAt)
	b = appendTime(append(b, `,"started_at":`...), j.StartedAt)
	b = appendTime(append(b, `,"finished_at":`...), j.FinishedAt)
	return appendTime(append(b, `,"expires_at":`...), j.ExpiresAt)
}

// Clients are told to poll again after half of the estimated time, within these bounds.
const (
	minPoll     = 250 * time.Millisecond
	maxPoll     = 5 * time.Second
	defaultPoll = time.Second // without an estimate
)

func appendPoll(b []byte, j *job.Job, snap *engine.Snapshot) []byte {
	if j.State.Ended() {
		return append(b, "null"...)
	}
	poll := defaultPoll
	if snap != nil && snap.Estimate > 0 {
		poll = min(max(snap.Estimate/2, minPoll), maxPoll)
	}
	return strconv.AppendInt(b, poll.Milliseconds(), 10)
}

func appendURLs(b []byte, id job.ID, watch string) []byte {
	b = append(b, `{"self":"`...)
	before := len(b)
	b = id.Append(append(b, jobsURL...))
	self := b[before:]
	b = append(append(append(b, `","output":"`...), self...), `/output`...)
	b = append(append(append(b, `","events":"`...), self...), `/events`...)
	b = append(append(append(b, `","result":"`...), self...), `/result`...)
	b = append(append(append(b, `","cancel":"`...), self...), `/cancel`...)
	if watch == "" {
		return append(b, `","watch":null}`...)
	}
	return append(appendString(append(b, `","watch":`...), watch), '}')
}

func appendProgress(b []byte, p job.Progress) []byte {
	percent := p.Percent
	// JSON has no such numbers.
	if math.IsNaN(percent) || math.IsInf(percent, 0) {
		percent = 0
	}
	b = strconv.AppendFloat(append(b, `{"percent":`...), percent, 'f', -1, 64)
	return append(appendString(append(b, `,"status":`...), p.Status), '}')
}

func appendFailure(b []byte, f *job.Failure) []byte {
	if f == nil {
		return append(b, "null"...)
	}
	b = appendString(append(b, `{"code":`...), f.Code)
	b = appendString(append(b, `,"message":`...), f.Message)
	b = strconv.AppendBool(append(b, `,"retryable":`...), f.Retryable)
	return append(strconv.AppendInt(append(b, `,"attempt":`...), int64(f.Attempt), 10), '}')
}

func appendFiles(b []byte, files []job.File) []byte {
	b = append(b, '[')
	for i := range files {
		b = appendString(append(comma(b, i), `{"name":`...), files[i].Name)
		b = appendString(append(b, `,"content_type":`...), files[i].ContentType)
		b = strconv.AppendInt(append(b, `,"size":`...), files[i].Size, 10)
		b = append(appendString(append(b, `,"sha256":`...), files[i].SHA256), '}')
	}
	return append(b, ']')
}

func appendMetadata(b []byte, pairs map[string]string) []byte {
	if len(pairs) == 0 {
		return append(b, "{}"...)
	}
	open := byte('{')
	// Sorted, so that the same job always has the same JSON.
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		b = appendString(append(b, open), name)
		b = appendString(append(b, ':'), pairs[name])
		open = ','
	}
	return append(b, '}')
}

// appendEntry appends an output entry. The data of text and log entries are JSON strings;
// that of every other kind is JSON already.
func appendEntry(b []byte, e *job.Entry) []byte {
	b = strconv.AppendInt(append(b, `{"seq":`...), e.Seq, 10)
	b = strconv.AppendInt(append(b, `,"attempt":`...), int64(e.Attempt), 10)
	b = appendString(append(b, `,"kind":`...), e.Kind.String())
	b = append(b, `,"data":`...)
	if e.Kind == job.KindText || e.Kind == job.KindLog {
		return append(appendString(b, e.Data), '}')
	}
	return append(appendValue(b, e.Data), '}')
}

// appendValue appends a value that should be JSON. It appends null where the value is empty
// or where an executor gave invalid JSON, which would break the whole response.
func appendValue(b, value []byte) []byte {
	if len(value) == 0 || !json.Valid(value) {
		return append(b, "null"...)
	}
	return append(b, value...)
}

// appendString appends a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start, done, ascii := len(b), 0, true
	for i := range len(s) {
		c := s[i]
		ascii = ascii && c < utf8.RuneSelf
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[done:]...)
	if !ascii {
		b = replaceInvalid(b, start)
	}
	return append(b, '"')
}

// replaceInvalid replaces invalid UTF-8 in b from start on.
func replaceInvalid(b []byte, start int) []byte {
	if utf8.Valid(b[start:]) {
		return b
	}
	return append(b[:start], strings.ToValidUTF8(string(b[start:]), "�")...)
}

func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, d.Round(time.Millisecond).Seconds(), 'f', -1, 64)
}

// appendTime appends a time of RFC 3339 in UTC with milliseconds; null for the zero time.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(b, '"')
	b = append(appendDigits(b, year, 4), '-')
	b = append(appendDigits(b, int(month), 2), '-')
	b = append(appendDigits(b, day, 2), 'T')
	b = append(appendDigits(b, hour, 2), ':')
	b = append(appendDigits(b, minute, 2), ':')
	b = append(appendDigits(b, second, 2), '.')
	b = appendDigits(b, t.Nanosecond()/int(time.Millisecond), 3)
	return append(b, 'Z', '"')
}

func appendDigits(b []byte, n, width int) []byte {
	for unit := [...]int{0, 1, 10, 100, 1000}[width]; unit > 0; unit /= 10 {
		b = append(b, byte('0'+n/unit%10))
	}
	return b
}
