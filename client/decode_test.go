package client

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// typicalJob is the JSON of a job that was just submitted.
const typicalJob = `{"id":"job_06b8k3v0000000000000000000","object":"job","queue":"sim","status":"queued","key":"k","priority":5,"attempt":0,"max_attempts":4,"abandon_after_s":null,` +
	`"queue_position":3,"held_back_by":"turn","estimated_time_seconds":1.25,"progress":{"percent":12.5,"status":"Working"},"output_text":"so far","cursor":7,"result":null,` +
	`"error":null,"usage":null,"files":[],"metadata":{},"cancel_requested_at":null,"created_at":"2030-01-31T09:00:00.123Z","run_at":"2030-01-31T09:00:00Z",` +
	`"started_at":null,"finished_at":null,"expires_at":null,"poll_after_ms":1000,"urls":{"self":"/v1/jobs/job_1","output":"/v1/jobs/job_1/output",` +
	`"events":"/v1/jobs/job_1/events","result":"/v1/jobs/job_1/result","cancel":"/v1/jobs/job_1/cancel","watch":"http://127.0.0.1:8080/v1/jobs/job_1/events?token=wt_1"}}`

// decodeJobPlainly decodes a job with encoding/json alone.
func decodeJobPlainly(data []byte) (Job, error) {
	type plain Job
	var j plain
	err := json.Unmarshal(data, &j)
	return Job(j), err
}

// sameJob compares two jobs. It treats nil, null and empty values as equal.
func sameJob(a, b Job) bool {
	for _, j := range []*Job{&a, &b} {
		j.Result, j.Usage, j.brief = nilForNull(j.Result), nilForNull(j.Usage), false
		if len(j.Metadata) == 0 {
			j.Metadata = nil
		}
		if len(j.Files) == 0 {
			j.Files = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

func TestJobScannerMatchesEncodingJSON(t *testing.T) {
	t.Parallel()
	s := scanner{text: []byte(typicalJob)}
	var j Job
	if !s.job(&j) || !s.atEnd() {
		t.Fatalf("the scanner stopped at %q", typicalJob[s.pos:])
	}
	if want, err := decodeJobPlainly([]byte(typicalJob)); err != nil || !sameJob(j, want) {
		t.Errorf("read %+v, want %+v (%v)", j, want, err)
	}
}

func TestUnmarshalJobMatchesEncodingJSON(t *testing.T) {
	t.Parallel()
	with := func(old, new string) string { return strings.Replace(typicalJob, old, new, 1) }
	for rule, text := range map[string]string{
		"an empty object":       `{}`,
		"white space":           " " + with(`,"queue"`, ", \n\"queue\"") + " ",
		"an escape":             with(`"so far"`, `"so\nfar"`),
		"other scripts":         with(`"so far"`, `"bis später"`),
		"null":                  with(`"so far"`, `null`),
		"a result":              with(`"result":null`, `"result":{"a":[1]}`),
		"a failure":             with(`"error":null`, `"error":{"code":"x","attempt":1}`),
		"an abandon timeout":    with(`"abandon_after_s":null`, `"abandon_after_s":180.5`),
		"files":                 with(`"files":[]`, `"files":[{"name":"a","content_type":"b","size":3,"sha256":"c"}]`),
		"metadata":              with(`"metadata":{}`, `"metadata":{"a":"b"}`),
		"an unknown field":      with(`"key"`, `"mood":[{}],"key"`),
		"a name in upper case":  with(`"key"`, `"KEY"`),
		"a repeated name":       with(`"key":"k"`, `"key":"a","key":"b"`),
		"an exponent":           with(`12.5`, `1e1`),
		"a long number":         with(`12.5`, `12.50`),
		"a time with an offset": with(`09:00:00Z`, `09:00:00+01:00`),
	} {
		var j Job
		err := json.Unmarshal([]byte(text), &j)
		want, wantErr := decodeJobPlainly([]byte(text))
		if err != nil || wantErr != nil || !sameJob(j, want) {
			t.Errorf("%s: read %+v (%v), want %+v (%v)", rule, j, err, want, wantErr)
		}
	}
}

func TestUnmarshalJobRefusesInvalidJSON(t *testing.T) {
	t.Parallel()
	with := func(old, new string) string { return strings.Replace(typicalJob, old, new, 1) }
	for rule, text := range map[string]string{
		"an empty body":         ``,
		"half a job":            typicalJob[:len(typicalJob)/2],
		"a job and a half":      typicalJob + typicalJob[:9],
		"an array":              `[]`,
		"a number as a name":    with(`"sim"`, `5`),
		"a fraction":            with(`"cursor":7`, `"cursor":7.5`),
		"a number too large":    with(`"cursor":7`, `"cursor":99999999999999999999`),
		"a leading zero":        with(`"cursor":7`, `"cursor":07`),
		"no number":             with(`"cursor":7`, `"cursor":`),
		"a day that is invalid": with(`2030-01-31T09:00:00Z`, `2030-02-31T09:00:00Z`),
		"a trailing comma":      with(`=wt_1"}`, `=wt_1",}`),
	} {
		if err := new(Job).UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s was read as a job", rule)
		}
	}
}

func FuzzDecodeJob(f *testing.F) {
	f.Add([]byte(typicalJob))
	f.Add([]byte(`{"priority":-0,"progress":{"percent":0.1},"queue_position":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := scanner{text: text}
		var j Job
		if !s.job(&j) || !s.atEnd() {
			return
		}
		if want, err := decodeJobPlainly(text); err != nil || !sameJob(j, want) {
			t.Errorf("%s is read as\n%+v, encoding/json has\n%+v (%v)", text, j, want, err)
		}
	})
}
