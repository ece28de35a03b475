package jobs

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Any JSON reader decodes the original string, except for invalid UTF-8.
func FuzzAppendString(f *testing.F) {
	for _, seed := range []string{"", "plain", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "é😀\u2028", "a\xffb\xc3", "\n\xff\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got string
		quoted := appendString([]byte("x"), text)
		if err := json.Unmarshal(quoted[1:], &got); err != nil {
			t.Fatalf("%q: %v", quoted, err)
		}
		if want := strings.ToValidUTF8(text, "�"); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		if string(appendString([]byte("x"), []byte(text))) != string(quoted) {
			t.Fatal("bytes are written in another way")
		}
	})
}

func TestAppendTimeFollowsRFC3339(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", rapid.IntRange(-12*3600, 14*3600).Draw(t, "zone"))
		at := time.Unix(rapid.Int64Range(0, 253402300799).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).In(zone)
		if got, want := string(appendTime(nil, at)), at.UTC().Format(`"2006-01-02T15:04:05.000Z"`); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
	if got := string(appendTime(nil, time.Time{})); got != "null" {
		t.Errorf("the zero time is %s", got)
	}
}

// The JSON of a job is valid, whatever the job contains.
func TestAppendJobWritesValidJSON(t *testing.T) {
	t.Parallel()
	text := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")) })
	rapid.Check(t, func(t *rapid.T) {
		snap := engine.Snapshot{
			Job: job.Job{
				ID: anID, Queue: text.Draw(t, "queue"), Key: text.Draw(t, "key"), State: rapid.SampledFrom(job.States()).Draw(t, "state"),
				Usage:    []byte(text.Draw(t, "usage")),
				Files:    []job.File{{Name: text.Draw(t, "name"), ContentType: text.Draw(t, "type"), SHA256: text.Draw(t, "hash")}},
				Metadata: rapid.MapOf(text, text).Draw(t, "metadata"),
				Progress: job.Progress{
					Percent: rapid.SampledFrom([]float64{0, 33.3, 1e-9, 1e300, math.NaN(), math.Inf(-1)}).Draw(t, "percent"),
					Status:  text.Draw(t, "status"),
				},
				Failure: &job.Failure{Code: text.Draw(t, "code"), Message: text.Draw(t, "message")},
			},
			Text:     text.Draw(t, "output"),
			Estimate: time.Duration(rapid.Int64().Draw(t, "estimate")),
			Result:   &job.Result{ContentType: "application/json", Body: []byte(text.Draw(t, "result"))},
		}
		if body := appendJob(nil, &snap.Job, &snap, text.Draw(t, "watch")); !json.Valid(body) {
			t.Fatalf("%q", body)
		}
	})
}
