package client

import (
	"encoding/json"
	"testing"
)

func BenchmarkDecodeJob(b *testing.B) {
	body := []byte(`{"id":"job_06b8k3v0000000000000000000","object":"job","queue":"sim","status":"queued","key":"","priority":5,"attempt":0,"max_attempts":4,"queue_position":0,"estimated_time_seconds":null,"progress":{"percent":0,"status":""},"output_text":"","cursor":0,"result":null,"error":null,"usage":null,"metadata":{},"cancel_requested_at":null,"created_at":"2030-01-31T09:00:00.000Z","run_at":"2030-01-31T09:00:00.000Z","started_at":null,"finished_at":null,"expires_at":null,"poll_after_ms":1000,"urls":{"self":"/v1/jobs/job_06b8k3v0000000000000000000","output":"/v1/jobs/job_06b8k3v0000000000000000000/output","events":"/v1/jobs/job_06b8k3v0000000000000000000/events","result":"/v1/jobs/job_06b8k3v0000000000000000000/result","cancel":"/v1/jobs/job_06b8k3v0000000000000000000/cancel"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := json.Unmarshal(body, new(Job)); err != nil {
			b.Fatal(err)
		}
	}
}
