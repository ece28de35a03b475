package client

import (
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// recorder records each request's body and Idempotency-Key.
type recorder struct{ bodies, keys []string }

// clientFor creates a client for a server that always gives the same answer.
func (h *recorder) clientFor(t *testing.T, answer string) *Client {
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.bodies, h.keys = append(h.bodies, r.Method+" "+r.URL.Path+" "+string(body)), append(h.keys, r.Header.Get("Idempotency-Key"))
		_, _ = io.WriteString(w, answer)
	})
	c.retries = 1 // so that calls carry keys
	return c
}

func TestSubmitBatchReadsJobsAndRefusals(t *testing.T) {
	t.Parallel()
	var h recorder
	c := h.clientFor(t, `{"object":"list","data":[{"id":"job_1","object":"job"},`+
		`{"object":"error","status":429,"code":"key_full","detail":"full","field":"/jobs/1","retry_after_s":2},`+typicalJob+`]}`)
	got, err := c.SubmitBatch(t.Context(), Batch{Jobs: []Submission{{Queue: "a"}, {Queue: "b", Input: 1, AbandonAfter: 3 * time.Minute}, {Queue: "c", AbandonAfter: Off}}})
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := `POST /v1/jobs/batch {"jobs":[{"queue":"a","input":null},{"queue":"b","abandon_after_s":180,"input":1},{"queue":"c","abandon_after_s":0,"input":null}]}`
	if h.bodies[0] != want {
		t.Errorf("sent\n%s, want\n%s", h.bodies[0], want)
	}
	refused := &Error{Status: 429, Code: CodeKeyFull, Message: "full", Field: "/jobs/1", RetryAfter: 2 * time.Second}
	if got[0].Job.ID != "job_1" || got[0].Err != nil || got[1].Job != nil || !reflect.DeepEqual(got[1].Err, refused) || got[2].Job.Cursor != 7 {
		t.Errorf("%+v %+v", got, got[1].Err)
	}
}

// The scanner decodes an answer as encoding/json does, or reports that it cannot.
func TestBatchScannerMatchesEncodingJSON(t *testing.T) {
	t.Parallel()
	text := `{"object":"list","data":[` + typicalJob + "," + typicalJob + `]}`
	var scanned, generic []BatchResult
	s := scanner{text: []byte(text)}
	if !s.batch(&scanned) || !s.atEnd() {
		t.Fatalf("the scanner stopped at %q", text[s.pos:])
	}
	list := batchAnswer{}
	if err := list.read([]byte(strings.Replace(text, `{"object"`, `{ "object"`, 1))); err != nil {
		t.Fatal(err)
	}
	if generic = list.Data; len(generic) != 2 || !sameJob(*scanned[1].Job, *generic[1].Job) {
		t.Errorf("%+v, %+v", scanned, generic)
	}
}

// A repeated try of a batch creates no job twice, with any combination of keys.
func TestSubmitBatchSetsIdempotencyKeys(t *testing.T) {
	t.Parallel()
	answer := `{"object":"list","data":[{"id":"job_1"},{"id":"job_2"}]}`
	for _, tt := range []struct {
		rule     string
		batch    Batch
		header   string // "*" for a random key
		firstKey string // key of the first job in the request
		bothKeys bool   // whether both jobs have a key in the request
	}{
		{"without any key the batch gets a random one", Batch{Jobs: []Submission{{Queue: "a"}, {Queue: "a"}}}, "*", "", false},
		{"the key of the batch is sent", Batch{Jobs: []Submission{{Queue: "a"}, {Queue: "a"}}, IdempotencyKey: "import", Atomic: true}, "import", "", false},
		{"if one job has a key, the other gets a random one", Batch{Jobs: []Submission{{Queue: "a", IdempotencyKey: "mine"}, {Queue: "a"}}}, "", "mine", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			var h recorder
			if _, err := h.clientFor(t, answer).SubmitBatch(t.Context(), tt.batch); err != nil {
				t.Fatal(err)
			}
			if tt.header == "*" != (len(h.keys[0]) == 32) || tt.header != "*" && h.keys[0] != tt.header {
				t.Errorf("the header is %q", h.keys[0])
			}
			if tt.firstKey != "" && !strings.Contains(h.bodies[0], `"idempotency_key":"`+tt.firstKey+`"`) {
				t.Errorf("sent %s", h.bodies[0])
			}
			if n := strings.Count(h.bodies[0], "idempotency_key"); n > 0 != tt.bothKeys || tt.bothKeys && n != 2 {
				t.Errorf("%d jobs have keys: %s", n, h.bodies[0])
			}
			if strings.Contains(h.bodies[0], `"atomic":true`) != tt.batch.Atomic {
				t.Errorf("sent %s", h.bodies[0])
			}
		})
	}
}

func TestRefusedAtomicBatchListsErrors(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		_, _ = io.WriteString(w, `{"status":503,"code":"queue_full","detail":"full","field":"/jobs/3","errors":[`+
			`{"field":"/jobs/3","status":503,"code":"queue_full","detail":"full"},{"field":"/jobs/5/queue","status":400,"code":"invalid_request","detail":"none"}]}`)
	})
	_, err := c.SubmitBatch(t.Context(), Batch{Jobs: make([]Submission, 6), Atomic: true})
	e := wantCode(t, err, CodeQueueFull)
	if e.Field != "/jobs/3" || len(e.Errors) != 2 || e.Errors[1].Field != "/jobs/5/queue" || e.Errors[1].Code != CodeInvalid || e.Errors[1].Message != "none" {
		t.Errorf("%+v", e)
	}
}

func TestSubmitBatchRefusesBadAnswers(t *testing.T) {
	t.Parallel()
	for rule, answer := range map[string]string{
		"one result for two jobs": `{"object":"list","data":[{"id":"job_1"}]}`, "no result for two jobs": `{"object":"list","data":[]}`,
		"a number": `7`, "a job": typicalJob, "half a list": `{"object":"list","data":[{"id":"job_1"},`, "a list of numbers": `{"object":"list","data":[1,2]}`,
	} {
		t.Run(rule, func(t *testing.T) {
			_, err := new(recorder).clientFor(t, answer).SubmitBatch(t.Context(), Batch{Jobs: make([]Submission, 2)})
			wantCode(t, err, CodeBadAnswer)
		})
	}
}

// The scanner decodes every value as encoding/json does.
func FuzzDecodeBatch(f *testing.F) {
	f.Add([]byte(`{"object":"list","data":[` + typicalJob + `]}`))
	f.Add([]byte(`{"object":"list","data":[{"object":"error","code":"x"},{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := scanner{text: text}
		var scanned []BatchResult
		if !s.batch(&scanned) || !s.atEnd() {
			return
		}
		list := batchAnswer{}
		if err := list.read(append([]byte(" "), text...)); err != nil || len(list.Data) != len(scanned) {
			t.Fatalf("%q: the scanner reads %d jobs, encoding/json %d (%v)", text, len(scanned), len(list.Data), err)
		}
		for i := range scanned {
			if plain := list.Data[i].Job; plain == nil || !sameJob(*scanned[i].Job, *plain) {
				t.Errorf("%q: the scanner reads job %d as %+v, encoding/json as %+v", text, i, scanned[i].Job, list.Data[i])
			}
		}
	})
}

func BenchmarkDecodeBatch(b *testing.B) {
	text := []byte(`{"object":"list","data":[` + strings.Repeat(typicalJob+",", 99) + typicalJob + `]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := new(batchAnswer).read(text); err != nil {
			b.Fatal(err)
		}
	}
}
