package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// Batch submits several jobs in one request, which costs less than one request each.
// A batch has 1 to 1,000 jobs and at most 16 MiB of JSON.
type Batch struct {
	Jobs []Submission
	// Atomic stores all jobs or none. When false, each job is stored or refused by itself.
	Atomic bool
	// IdempotencyKey makes the whole batch idempotent, as [Submission.IdempotencyKey]
	// does for one job. Set it here or in the submissions, not both. When no key is set
	// anywhere and the client retries, each call sends a random key, so that a retry
	// creates no job twice.
	IdempotencyKey string
}

// BatchResult is the outcome for one job of a batch: the stored job or its refusal.
type BatchResult struct {
	Job *Job
	Err *Error // nil when Job is set; Err.Field begins with the job's index, as in "/jobs/3"
}

// SubmitBatch submits several jobs and returns one result for each, in the order of
// b.Jobs. It returns once the stored jobs are on the server's disk. The error refuses
// the batch as a whole: for an atomic batch [Error.Errors] names the jobs at fault.
func (c *Client) SubmitBatch(ctx context.Context, b Batch) ([]BatchResult, error) {
	k := &call{method: http.MethodPost, path: "/v1/jobs/batch", key: b.IdempotencyKey}
	keyed := k.key != "" || slices.ContainsFunc(b.Jobs, func(s Submission) bool { return s.IdempotencyKey != "" })
	if !keyed && c.retries > 0 {
		k.key = newKey()
	}
	// If one job has its own key, the batch as a whole must not have one. Each of the other
	// jobs then needs a key too, or a retry would create it twice.
	var err error
	if k.body, err = b.encode(keyed && k.key == "" && c.retries > 0); err != nil {
		return nil, err
	}
	var list batchAnswer
	if _, err := c.json(ctx, k, &list); err != nil {
		return nil, err
	}
	// Results are matched with jobs by position only, so the numbers must agree.
	if len(list.Data) != len(b.Jobs) {
		return nil, badAnswer(http.StatusOK, fmt.Errorf("it has %d results for %d jobs", len(list.Data), len(b.Jobs)))
	}
	return list.Data, nil
}

// encode writes the batch as JSON. With addKeys, each job without an idempotency key
// gets a random one.
func (b *Batch) encode(addKeys bool) ([]byte, error) {
	body := []byte(`{"jobs":[`)
	for i := range b.Jobs {
		key := b.Jobs[i].IdempotencyKey
		if key == "" && addKeys {
			key = newKey()
		}
		job, err := b.Jobs[i].encode(key)
		if err != nil {
			return nil, fmt.Errorf("job %d: %w", i, err)
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, job...)
	}
	if b.Atomic {
		return append(body, `],"atomic":true}`...), nil
	}
	return append(body, "]}"...), nil
}

// batchAnswer is the server's answer to a batch.
type batchAnswer struct {
	Data []BatchResult `json:"data"`
}

// read decodes the answer. The scanner decodes an answer with only ordinary jobs; see
// [Job.UnmarshalJSON]. encoding/json decodes any other answer.
func (l *batchAnswer) read(text []byte) error {
	s := scanner{text: text}
	if s.batch(&l.Data) && s.atEnd() {
		return nil
	}
	l.Data = nil
	return json.Unmarshal(text, l)
}

// UnmarshalJSON decodes a job or a refusal, depending on the field "object".
func (s *BatchResult) UnmarshalJSON(text []byte) error {
	var kind struct {
		Object string `json:"object"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return err
	}
	if kind.Object != "error" {
		s.Job, s.Err = new(Job), nil
		return s.Job.UnmarshalJSON(text)
	}
	var p problem
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	s.Job, s.Err = nil, p.toError()
	return nil
}

// batch reads a list that holds only jobs. It reports false when one was refused.
func (s *scanner) batch(to *[]BatchResult) bool {
	if !s.literal(`{"object":"list","data":[`) || s.accept(']') {
		return false
	}
	for {
		if bytes.HasPrefix(s.text[s.pos:], []byte(`{"object":"error"`)) {
			return false
		}
		j := new(Job)
		if !s.job(j) {
			return false
		}
		*to = append(*to, BatchResult{Job: j})
		if !s.accept(',') {
			return s.literal("]}")
		}
	}
}

// literal reads exactly this text.
func (s *scanner) literal(text string) bool {
	if !bytes.HasPrefix(s.text[s.pos:], []byte(text)) {
		return false
	}
	s.pos += len(text)
	return true
}
