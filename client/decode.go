package client

import (
	"encoding/json"
	"strconv"
	"time"
)

// UnmarshalJSON decodes a job. Nearly every answer holds a job, and encoding/json needs
// more time for it than the rest of a call (see BenchmarkDecodeJob). So a scanner reads
// the form that servers write. Anything else, such as a field of a newer server, goes
// through encoding/json. encoding/json/v2 makes the scanner unnecessary once it leaves
// its experiment.
func (j *Job) UnmarshalJSON(data []byte) error {
	fast := *j
	// The scanner sets brief to false when output_text is not null.
	fast.brief = true
	if s := (scanner{text: data}); s.job(&fast) && s.atEnd() {
		*j = fast
		return nil
	}
	type plain Job // the same fields without this method
	full := struct {
		*plain
		OutputText *string `json:"output_text"`
	}{plain: (*plain)(j)}
	if err := json.Unmarshal(data, &full); err != nil {
		return err
	}
	if j.brief = full.OutputText == nil; !j.brief {
		j.OutputText = *full.OutputText
	}
	j.Result, j.Usage = nilForNull(j.Result), nilForNull(j.Usage)
	return nil
}

func nilForNull(value json.RawMessage) json.RawMessage {
	if string(value) == "null" {
		return nil
	}
	return value
}

// scanner reads JSON without white space and without escapes. Its methods report
// whether they read the expected value; after false the caller uses encoding/json.
type scanner struct {
	text []byte
	pos  int
}

func (s *scanner) atEnd() bool { return s.pos == len(s.text) }

// accept reads the byte c if it comes next.
func (s *scanner) accept(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// object reads an object. It calls field for each member; field reads the value and
// returns a number for the name, 0 to 63. A repeated name is refused.
func (s *scanner) object(field func(name []byte) (bit int, ok bool)) bool {
	if !s.accept('{') {
		return false
	}
	if s.accept('}') {
		return true
	}
	for found := 0; ; {
		name, ok := s.plainString()
		if !ok || !s.accept(':') {
			return false
		}
		bit, ok := field(name)
		if !ok || found&(1<<bit) != 0 {
			return false
		}
		found |= 1 << bit
		if s.accept('}') {
			return true
		}
		if !s.accept(',') {
			return false
		}
	}
}

// plainString reads a string of printable ASCII without escapes. It returns the text
// between the quotes, which shares memory with s.text.
func (s *scanner) plainString() ([]byte, bool) {
	if !s.accept('"') {
		return nil, false
	}
	for i := s.pos; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			word := s.text[s.pos:i]
			s.pos = i + 1
			return word, true
		case c < ' ' || c > '~' || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

// null reads a null.
func (s *scanner) null() bool {
	if len(s.text)-s.pos >= 4 && string(s.text[s.pos:s.pos+4]) == "null" {
		s.pos += 4
		return true
	}
	return false
}

func (s *scanner) string(to *string) bool {
	if s.null() {
		return true
	}
	word, ok := s.plainString()
	*to = string(word)
	return ok
}

func (s *scanner) time(to *time.Time) bool {
	if s.null() {
		return true
	}
	start := s.pos
	_, ok := s.plainString()
	return ok && to.UnmarshalJSON(s.text[start:s.pos]) == nil
}

// number reads the characters of a number without an exponent.
func (s *scanner) number() string {
	start := s.pos
	for s.pos < len(s.text) && (s.text[s.pos]-'0' <= 9 || s.text[s.pos] == '.' || s.text[s.pos] == '-') {
		s.pos++
	}
	return string(s.text[start:s.pos])
}

// integer reads an integer in canonical form, so that writing it gives the same digits.
func (s *scanner) integer(to *int64) bool {
	if s.null() {
		return true
	}
	digits := s.number()
	n, err := strconv.ParseInt(digits, 10, 64)
	*to = n
	return err == nil && strconv.FormatInt(n, 10) == digits
}

func (s *scanner) int(to *int) bool {
	n := int64(*to)
	ok := s.integer(&n)
	*to = int(n)
	return ok
}

func (s *scanner) float(to *float64) bool {
	digits := s.number()
	n, err := strconv.ParseFloat(digits, 64)
	*to = n
	return err == nil && strconv.FormatFloat(n, 'f', -1, 64) == digits
}

// optional reads a value or null. Null sets *to to nil.
func optional[T any](read func(*T) bool, s *scanner, to **T) bool {
	*to = nil
	if s.null() {
		return true
	}
	*to = new(T)
	return read(*to)
}

// job reads a job. It reports false for values that most answers do not have: results,
// errors, metadata, files, and text other than plain ASCII.
func (s *scanner) job(j *Job) bool {
	return s.object(func(name []byte) (int, bool) {
		switch string(name) {
		case "id":
			return 0, s.string(&j.ID)
		case "object":
			return 1, s.string(&j.Object)
		case "queue":
			return 2, s.string(&j.Queue)
		case "status":
			return 3, s.string((*string)(&j.Status))
		case "key":
			return 4, s.string(&j.Key)
		case "priority":
			return 5, s.int(&j.Priority)
		case "attempt":
			return 6, s.int(&j.Attempt)
		case "max_attempts":
			return 7, s.int(&j.MaxAttempts)
		case "queue_position":
			return 8, optional(s.int, s, &j.QueuePosition)
		case "held_back_by":
			return 27, s.string((*string)(&j.HeldBackBy))
		case "resource":
			return 28, s.string(&j.Resource)
		case "estimated_time_seconds":
			return 9, optional(s.float, s, &j.EstimatedTimeSeconds)
		case "progress":
			return 10, s.progress(&j.Progress)
		case "output_text":
			j.brief = s.null()
			return 11, j.brief || s.string(&j.OutputText)
		case "cursor":
			return 12, s.integer(&j.Cursor)
		case "result":
			j.Result = nil
			return 13, s.null()
		case "error":
			j.Error = nil
			return 14, s.null()
		case "usage":
			j.Usage = nil
			return 15, s.null()
		case "metadata":
			return 16, s.accept('{') && s.accept('}')
		case "cancel_requested_at":
			return 17, s.time(&j.CancelRequestedAt)
		case "created_at":
			return 18, s.time(&j.CreatedAt)
		case "run_at":
			return 19, s.time(&j.RunAt)
		case "started_at":
			return 20, s.time(&j.StartedAt)
		case "finished_at":
			return 21, s.time(&j.FinishedAt)
		case "expires_at":
			return 22, s.time(&j.ExpiresAt)
		case "poll_after_ms":
			return 23, s.int(&j.PollAfterMS)
		case "urls":
			return 24, s.urls(&j.URLs)
		case "abandon_after_s":
			return 25, s.null() || s.float(&j.AbandonAfterS)
		case "files":
			j.Files = nil
			return 26, s.accept('[') && s.accept(']')
		}
		return 0, false
	})
}

func (s *scanner) progress(p *Progress) bool {
	return s.object(func(name []byte) (int, bool) {
		switch string(name) {
		case "percent":
			return 0, s.float(&p.Percent)
		case "status":
			return 1, s.string(&p.Status)
		}
		return 0, false
	})
}

func (s *scanner) urls(u *URLs) bool {
	return s.object(func(name []byte) (int, bool) {
		switch string(name) {
		case "self":
			return 0, s.string(&u.Self)
		case "output":
			return 1, s.string(&u.Output)
		case "events":
			return 2, s.string(&u.Events)
		case "result":
			return 3, s.string(&u.Result)
		case "cancel":
			return 4, s.string(&u.Cancel)
		case "watch":
			return 5, s.string(&u.Watch)
		}
		return 0, false
	})
}
