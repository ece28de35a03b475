package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// Batch asks for several jobs in one request, which costs less than one by one: 1 to
// 1,000 jobs, 16 MiB in all.
type Batch struct {
	Jobs []Submission
	// Atomic stores all of them or none.
	Atomic bool
	// IdempotencyKey makes the jobs once, as a [Submission]'s own does; the submissions
	// then have none. When neither they nor the batch have one, the batch is given a
	// random one for each call, so that a repeated try never makes jobs twice.
	IdempotencyKey string
}

// BatchResult is what became of one job of a batch: the job, or why it was refused.
type BatchResult struct {
	Job *Job
	Err *Error // nil when there is a job; its Field begins with the job's place, "/jobs/3"
}

// SubmitBatch stores several jobs and returns, once they are on the server's disk,
// what became of each, in their order. The error is of the whole, as when the batch
// is atomic and one of its jobs was refused: then [Error.Errors] says which.
func (c *Client) SubmitBatch(ctx context.Context, b Batch) ([]BatchResult, error) {
	k := &call{method: http.MethodPost, path: "/v1/jobs/batch", key: b.IdempotencyKey}
	keyed := k.key != "" || slices.ContainsFunc(b.Jobs, func(s Submission) bool { return s.IdempotencyKey != "" })
	if !keyed && c.retries > 0 {
		k.key = newKey()
	}
	var err error
	if k.body, err = b.encode(keyed && k.key == "" && c.retries > 0); err != nil {
		return nil, err
	}
	var list batchAnswer
	if _, err := c.json(ctx, k, &list); err != nil {
		return nil, err
	}
	if len(list.Data) != len(b.Jobs) {
		return nil, badAnswer(http.StatusOK, fmt.Errorf("it tells of %d jobs, there were %d", len(list.Data), len(b.Jobs)))
	}
	return list.Data, nil
}

// encode writes the batch. With fill, jobs that have no key are given one.
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

// batchAnswer is the answer to a batch.
type batchAnswer struct {
	Data []BatchResult `json:"data"`
}

// read reads the answer: by hand where it holds nothing but the usual jobs, see
// [Job.UnmarshalJSON].
func (l *batchAnswer) read(text []byte) error {
	s := scanner{text: text}
	if s.batch(&l.Data) && s.atEnd() {
		return nil
	}
	l.Data = nil
	return json.Unmarshal(text, l)
}

// UnmarshalJSON reads a job or a refusal.
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

// batch reads a list of nothing but jobs.
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

// literal reads exactly these characters.
func (s *scanner) literal(text string) bool {
	if !bytes.HasPrefix(s.text[s.pos:], []byte(text)) {
		return false
	}
	s.pos += len(text)
	return true
}
