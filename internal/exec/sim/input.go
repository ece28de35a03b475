package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/strictjson"
)

// Bounds of the numbers in an input.
const (
	maxTokens    = 1_000_000
	maxPerSecond = 1e6
	maxFailures  = 1_000_000
	maxFailCode  = 64 // bytes
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

// parse reads an input. It runs twice a job, in the benchmarks tens of thousands of
// times a second, which is why it does not decode into a struct.
func parse(input []byte) (params, *job.Error) {
	p := params{failCode: "sim_failure", failClass: job.Retryable}
	s := strictjson.New(input)
	if s.Peek() != '{' {
		return p, invalid("the input must be a JSON object, such as {\"duration_ms\": 1000}")
	}
	if err := s.Members(p.set); err != nil {
		return p, err
	}
	if !s.AtEnd() {
		return p, s.SyntaxError("there is more after the end of the input")
	}
	return p, nil
}

func (p *params) set(name, value []byte) *job.Error {
	var n float64
	var err *job.Error
	switch string(name) {
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
			err = invalid("%q must be true or false", name)
		}
	case "echo":
		p.echo = value
	default:
		err = invalid("there is no field %s: there are %s", job.Quote(string(name)), strings.Join(fieldNames, ", "))
	}
	return err
}

func number(name, value []byte, most float64) (float64, *job.Error) {
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil || n < 0 || n > most {
		return 0, invalid("%q must be a number from 0 to %.0f", name, most)
	}
	return n, nil
}

func whole(name, value []byte, most float64) (float64, *job.Error) {
	n, err := number(name, value, most)
	if err != nil || n != math.Trunc(n) {
		return 0, invalid("%q must be a whole number from 0 to %.0f", name, most)
	}
	return n, nil
}

func failure(name, value []byte) (string, job.Class, *job.Error) {
	var text string
	if value[0] != '"' || json.Unmarshal(value, &text) != nil {
		return "", 0, invalid("%q must be a string", name)
	}
	if text == "" {
		return "sim_failure", job.Retryable, nil
	}
	kind, code, found := strings.Cut(text, ":")
	if !found {
		kind, code = "later", text
	}
	class, known := map[string]job.Class{"later": job.Retryable, "final": job.Final, "wait": job.Wait, "timeout": job.Timeout}[kind]
	if !known || code == "" || len(code) > maxFailCode || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return "", 0, invalid(
			"%q must be up to %d of a-z, 0-9 and _, with \"final:\", \"wait:\", \"timeout:\" or nothing before", name, maxFailCode)
	}
	return code, class, nil
}

func invalid(format string, args ...any) *job.Error {
	return &job.Error{Code: job.Invalid, Message: fmt.Sprintf(format, args...)}
}
