package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Bounds of the numbers in an input.
const (
	maxTokens    = 1_000_000
	maxPerSecond = 1e6
	maxFailures  = 1_000_000
	maxFailCode  = 64  // bytes
	maxFieldName = 128 // bytes; a longer one is not pointed at
)

// params is an input, understood. Its zero value is `{}`.
type params struct {
	duration     time.Duration
	tokens       int
	perSecond    float64
	failAttempts int
	failCode     string
	failClass    job.Class
	ignoreCancel bool
	echo         []byte // part of the input
}

var fieldNames = []string{
	"duration_ms", "tokens", "tokens_per_s", "fail_attempts", "fail_code", "ignore_cancel", "echo",
}

// parse reads an input that nobody has looked at.
func parse(input []byte) (params, *job.Error) {
	if !json.Valid(input) || !utf8.Valid(input) {
		return params{}, invalid("", "the input is not JSON in UTF-8")
	}
	return parseValid(input)
}

// parseValid reads an input that is known to be JSON. It runs twice a job, in the
// benchmarks tens of thousands of times a second, which is why it does not decode
// into a struct.
func parseValid(input []byte) (params, *job.Error) {
	p := params{failCode: "sim_failure", failClass: job.Later}
	object := bytes.TrimSpace(input)
	if object[0] != '{' {
		return p, invalid("", "the input must be a JSON object, such as {\"duration_ms\": 1000}")
	}
	var seen [16]string
	n := 0
	for name, value := range members(object) {
		for _, s := range seen[:n] {
			if s == name {
				return p, invalid(name, "the field %s is given twice", job.Quote(name))
			}
		}
		if err := p.set(name, value); err != nil {
			return p, err
		}
		seen[n] = name // set took it, so there are no more than there are fields
		n++
	}
	return p, nil
}

func (p *params) set(name string, value []byte) *job.Error {
	var n float64
	var err *job.Error
	switch name {
	case "duration_ms":
		n, err = number(name, value, float64(job.MaxDuration/time.Millisecond))
		p.duration = time.Duration(n * float64(time.Millisecond))
	case "tokens":
		n, err = whole(name, value, maxTokens)
		p.tokens = int(n)
	case "tokens_per_s":
		p.perSecond, err = number(name, value, maxPerSecond)
	case "fail_attempts":
		n, err = whole(name, value, maxFailures)
		p.failAttempts = int(n)
	case "fail_code":
		p.failCode, p.failClass, err = failure(name, value)
	case "ignore_cancel":
		p.ignoreCancel = string(value) == "true"
		if !p.ignoreCancel && string(value) != "false" {
			err = invalid(name, "%q must be true or false", name)
		}
	case "echo":
		p.echo = value
	default:
		err = invalid(name, "there is no field %s: there are %s", job.Quote(name), strings.Join(fieldNames, ", "))
	}
	return err
}

func number(name string, value []byte, most float64) (float64, *job.Error) {
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil || n < 0 || n > most {
		return 0, invalid(name, "%q must be a number from 0 to %.0f", name, most)
	}
	return n, nil
}

func whole(name string, value []byte, most float64) (float64, *job.Error) {
	n, err := number(name, value, most)
	if err != nil || n != math.Trunc(n) {
		return 0, invalid(name, "%q must be a whole number from 0 to %.0f", name, most)
	}
	return n, nil
}

func failure(name string, value []byte) (string, job.Class, *job.Error) {
	var text string
	if value[0] != '"' || json.Unmarshal(value, &text) != nil {
		return "", 0, invalid(name, "%q must be a string", name)
	}
	if text == "" {
		return "sim_failure", job.Later, nil
	}
	kind, code, found := strings.Cut(text, ":")
	if !found {
		kind, code = "later", text
	}
	class, known := map[string]job.Class{"later": job.Later, "final": job.Final, "wait": job.Wait, "timeout": job.Timeout}[kind]
	if !known || code == "" || len(code) > maxFailCode || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return "", 0, invalid(name,
			"%q must be up to %d of a-z, 0-9 and _, with \"final:\", \"wait:\", \"timeout:\" or nothing before", name, maxFailCode)
	}
	return code, class, nil
}

func invalid(field, format string, args ...any) *job.Error {
	e := &job.Error{Code: job.Invalid, Message: fmt.Sprintf(format, args...)}
	if field != "" && len(field) <= maxFieldName {
		e.Field = "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(field)
	}
	return e
}

// members walks over a JSON object that is known to be valid: every name with its
// value, as it is written.
func members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		at := space(object, 1)
		for object[at] != '}' {
			end := value(object, at)
			name := unquoted(object[at:end])
			at = space(object, space(object, end)+1) // the colon
			end = value(object, at)
			if !yield(name, object[at:end]) {
				return
			}
			at = space(object, end)
			if object[at] == ',' {
				at = space(object, at+1)
			}
		}
	}
}

func unquoted(name []byte) string {
	if bytes.IndexByte(name, '\\') < 0 {
		return string(name[1 : len(name)-1])
	}
	var s string
	_ = json.Unmarshal(name, &s)
	return s
}

// space is the first place from at on that is no white space.
func space(doc []byte, at int) int {
	for doc[at] == ' ' || doc[at] == '\t' || doc[at] == '\n' || doc[at] == '\r' {
		at++
	}
	return at
}

// value is the end of the JSON value that begins at a place.
func value(doc []byte, at int) int {
	for depth := 0; ; {
		switch doc[at] {
		case '"':
			for at++; doc[at] != '"'; at++ {
				if doc[at] == '\\' {
					at++
				}
			}
			at++
		case '{', '[':
			depth++
			at++
		case '}', ']':
			depth--
			at++
		default:
			at += max(1, bytes.IndexAny(doc[at:], ",:}] \t\n\r"))
		}
		if depth == 0 {
			return at
		}
	}
}
