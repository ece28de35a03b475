package client

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestMarshalJobRoundTrips(t *testing.T) {
	t.Parallel()
	with := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(typicalJob) }
	whole := with(`:00Z"`, `:00.000Z"`) // servers write milliseconds
	for rule, text := range map[string]string{
		"a waiting job":        whole,
		"a job with output":    strings.Replace(whole, `"so far"`, `"<so> & \"far\""`, 1),
		"a job without output": strings.Replace(whole, `"so far"`, `""`, 1),
		"a job of a list": strings.NewReplacer(`"so far"`, `null`, `"queue_position":3,"held_back_by":"turn"`, `"queue_position":null,"held_back_by":null`, `"estimated_time_seconds":1.25`, `"estimated_time_seconds":null`,
			`"http://127.0.0.1:8080/v1/jobs/job_1/events?token=wt_1"`, `null`).Replace(whole),
		"an ended job": strings.NewReplacer(`"result":null`, `"result":{"a":[1]}`, `"error":null`, `"error":{"code":"x","message":"m","retryable":true,"attempt":1}`,
			`"usage":null`, `"usage":{"t":1}`, `"files":[]`, `"files":[{"name":"a","content_type":"b","size":3,"sha256":"c"}]`, `"metadata":{}`, `"metadata":{"a":"b","c":""}`,
			`"abandon_after_s":null`, `"abandon_after_s":180.5`, `"poll_after_ms":1000`, `"poll_after_ms":null`, `"finished_at":null`, `"finished_at":"2030-01-31T09:00:00.120Z"`).Replace(whole),
	} {
		var j Job
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			t.Fatal(rule, err)
		}
		var got strings.Builder
		enc := json.NewEncoder(&got)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(struct{ Job *Job }{&j}); err != nil {
			t.Fatal(rule, err)
		}
		if want := `{"Job":` + text + "}\n"; got.String() != want {
			t.Errorf("%s is written as\n%s, not\n%s", rule, got.String(), want)
		}
	}
}

// A job that was not decoded from an answer has null for its missing values.
func TestMarshalEmptyJob(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(Job{CreatedAt: time.Date(2030, 1, 31, 10, 0, 0, 1_999_999, time.FixedZone("", 3600))})
	if want := `{"id":"","object":"","queue":"","status":"","key":"","priority":0,"attempt":0,"max_attempts":0,"abandon_after_s":null,"queue_position":null,"held_back_by":null,` +
		`"estimated_time_seconds":null,"progress":{"percent":0,"status":""},"output_text":"","cursor":0,"result":null,"error":null,"usage":null,"files":[],"metadata":{},` +
		`"cancel_requested_at":null,"created_at":"2030-01-31T09:00:00.001Z","run_at":null,"started_at":null,"finished_at":null,"expires_at":null,"poll_after_ms":null,` +
		`"urls":{"self":null,"output":null,"events":null,"result":null,"cancel":null,"watch":null}}`; err != nil || string(got) != want {
		t.Errorf("written as\n%s (%v), not\n%s", got, err, want)
	}
}
