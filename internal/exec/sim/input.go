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

// Limits of the numbers in an input.
const (
	maxTokens    = 1_000_000
	maxPerSecond = 1e6
	maxFailures  = 1_000_000
	maxFailCode  = 64 // bytes
)

// params is a parsed input. Its zero value is `{}`.
type params struct {
	duration     time.Duration
	tokens       int
	perSecond    float64
	failAttempts int
	failCode     string
	failClass    job.Class
	ignoreCancel bool
	echo         []byte // a slice of the input
}

var fieldNames = []string{
	"duration_ms", "tokens", "tokens_per_s", "fail_attempts", "fail_code", "ignore_cancel", "echo",
}

// parseInput parses an input. It runs twice per job, in benchmarks tens of thousands of times
// a second, so it does not decode into a struct.
func parseInput(input []byte) (params, *job.Error) {
	p := params{failCode: "sim_failure", failClass: job.Retryable}
	s := strictjson.New(input)
	if s.Peek() != '{' {
		return p, invalid("the input must be a JSON object, such as {\"duration_ms\": 1000}")
	}
	if err := s.Members(p.setField); err != nil {
		return p, err
	}
	if !s.AtEnd() {
		return p, s.SyntaxError("there is more after the end of the input")
	}
	return p, nil
}

func (p *params) setField(name, value []byte) *job.Error {
	var n float64
	var err *job.Error
	switch string(name) {
	case "duration_ms":
		n, err = parseNumber(name, value, float64(job.MaxDuration/time.Millisecond))
		p.duration = time.Duration(n * float64(time.Millisecond))
	case "tokens":
		n, err = parseWhole(name, value, maxTokens)
		p.tokens = int(n)
	case "tokens_per_s":
		p.perSecond, err = parseNumber(name, value, maxPerSecond)
	case "fail_attempts":
		n, err = parseWhole(name, value, maxFailures)
		p.failAttempts = int(n)
	case "fail_code":
		p.failCode, p.failClass, err = parseFailCode(name, value)
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

func parseNumber(name, value []byte, limit float64) (float64, *job.Error) {
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil || n < 0 || n > limit {
		return 0, invalid("%q must be a number from 0 to %.0f", name, limit)
	}
	return n, nil
}

func parseWhole(name, value []byte, limit float64) (float64, *job.Error) {
	n, err := parseNumber(name, value, limit)
	if err != nil || n != math.Trunc(n) {
		return 0, invalid("%q must be a whole number from 0 to %.0f", name, limit)
	}
	return n, nil
}

func parseFailCode(name, value []byte) (string, job.Class, *job.Error) {
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
