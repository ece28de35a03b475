package conversation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

var (
	ctx = context.Background()
	ann = job.Owner{User: "ann"}
	bob = job.Owner{User: "bob"}
)

// harness is a real store with conversations, and commits one op at a time.
type harness struct {
	*testing.T
	*conversation.Conversations
	store *sqlite.Store
	lease map[job.ID]job.Token
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	s, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "jobs.db"),
		sqlite.Options{AtEnd: conversation.AtEnd, Unsynced: true, Readers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	h := &harness{T: t, store: s, lease: map[job.ID]job.Token{}}
	h.Conversations = conversation.New(s, h)
	return h
}

func (h *harness) commit(b *store.Batch) {
	h.Helper()
	b.ID = store.NewBatch().ID
	if err := store.Commit(ctx, h.store, b); err != nil {
		h.Fatal(err)
	}
}

func (h *harness) Write(_ context.Context, rows ...store.Row) error {
	op := &store.Write{Rows: rows}
	h.commit(&store.Batch{Writes: []*store.Write{op}})
	return op.Err
}

// submit stores a turn's job, leased.
func (h *harness) submit(owner job.Owner, turn conversation.Turn) *store.Submit {
	h.Helper()
	id, token := job.NewID(), job.NewToken()
	op := &store.Submit{
		Job: job.Job{
			ID: id, Owner: owner, Queue: "chat", Priority: 5, MaxAttempts: 1, Refs: turn.Refs(),
			Policy: job.Policy{Timeouts: job.Timeouts{Lease: time.Minute}},
		},
		Input: turn.Prompt(""), Rows: turn.Rows(id),
		Token: token, LeaseFor: time.Minute, Worker: "worker",
	}
	h.commit(&store.Batch{Submits: []*store.Submit{op}})
	h.lease[id] = token
	return op
}

// ask asks a question and returns its job.
func (h *harness) ask(owner job.Owner, id conversation.ID, query string) (conversation.ID, job.ID) {
	h.Helper()
	turn := h.begin(owner, id, query)
	op := h.submit(owner, turn)
	if op.Err != nil {
		h.Fatal(op.Err)
	}
	answer, ok := conversation.AnswerIDOf(&op.Job)
	if !ok {
		h.Fatalf("the job refers to %q", op.Job.Refs)
	}
	return answer.Conversation, op.Job.ID
}

func (h *harness) begin(owner job.Owner, id conversation.ID, query string) conversation.Turn {
	h.Helper()
	public := ""
	if !id.IsZero() {
		public = id.String()
	}
	return h.beginNamed(owner, public, query)
}

func (h *harness) beginNamed(owner job.Owner, public, query string) conversation.Turn {
	h.Helper()
	turn, err := h.Begin(ctx, owner, public, query)
	if err != nil {
		h.Fatal(err)
	}
	return turn
}

// appendText appends text to a running job's output.
func (h *harness) appendText(task job.ID, seq int64, text string) {
	h.Helper()
	op := &store.Append{Lease: h.leaseOf(task), Entries: []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte(text)}}}
	h.commit(&store.Batch{Appends: []*store.Append{op}})
	if op.Err != nil {
		h.Fatal(op.Err)
	}
}

func (h *harness) end(task job.ID, f store.Finish) {
	h.Helper()
	f.Lease = h.leaseOf(task)
	h.commit(&store.Batch{Finishes: []*store.Finish{&f}})
	if f.Err != nil {
		h.Fatal(f.Err)
	}
}

func (h *harness) answer(task job.ID, text string) {
	h.Helper()
	h.end(task, store.Finish{To: job.Succeeded, Result: completion(text)})
}

// retry queues a job again and claims it.
func (h *harness) retry(task job.ID) {
	h.Helper()
	retry := &store.Retry{Owner: ann, ID: task}
	claim := &store.Claim{Queue: "chat", Worker: "worker", Tokens: []job.Token{job.NewToken()}, LeaseFor: time.Minute}
	h.commit(&store.Batch{Retries: []*store.Retry{retry}, Claims: []*store.Claim{claim}})
	if retry.Err != nil || len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != task {
		h.Fatal(retry.Err, claim.Claimed)
	}
	h.lease[task] = claim.Claimed[0].Token
}

// remove deletes jobs, as an engine does.
func (h *harness) remove(tasks []job.ID) error {
	b := &store.Batch{}
	for _, task := range tasks {
		b.Deletes = append(b.Deletes, &store.Delete{Owner: ann, ID: task})
	}
	h.commit(b)
	for _, op := range b.Deletes {
		if op.Err != nil && job.CodeOf(op.Err) != job.NotFound {
			return op.Err
		}
	}
	return nil
}

func (h *harness) delete(id conversation.ID) {
	h.Helper()
	if err := h.Delete(ctx, ann, id, h.remove); err != nil {
		h.Fatal(err)
	}
}

// wantGone checks that nothing of a conversation can be read: no row, and no job.
func (h *harness) wantGone(id conversation.ID, tasks ...job.ID) {
	h.Helper()
	_, err := h.Get(ctx, ann, id)
	wantCode(h.T, err, job.NotFound)
	for _, kind := range []string{"message", "answering"} {
		rows, err := h.store.Rows(ctx, store.RowSet{Owner: ann, Kind: kind, Parent: id.String()}, store.RowPage{Limit: 10})
		if err != nil || len(rows) > 0 {
			h.Fatalf("the rows %q are left, %v", rows, err)
		}
	}
	for _, task := range tasks {
		_, err := h.store.Job(ctx, ann, task)
		wantCode(h.T, err, job.NotFound)
		_, err = h.store.Input(ctx, ann, task)
		wantCode(h.T, err, job.NotFound)
	}
}

func (h *harness) leaseOf(task job.ID) job.Lease { return job.Lease{Job: task, Token: h.lease[task]} }

func completion(text string) *job.Result {
	content, _ := json.Marshal(text)
	return &job.Result{ContentType: "application/json", Body: fmt.Appendf(nil,
		`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%s}}]}`, content)}
}

// all lists the messages of a conversation, each as "role: content [status]".
func (h *harness) all(owner job.Owner, id conversation.ID) []string {
	h.Helper()
	page, more, err := h.Messages(ctx, owner, id, conversation.MessageID{}, 100)
	if err != nil || more {
		h.Fatal(more, err)
	}
	var messages []string
	for _, m := range page {
		line := string(m.Role) + ": " + m.Content
		if m.Role == conversation.Assistant {
			line += " [" + string(m.Status) + "]"
		}
		messages = append(messages, line)
	}
	return messages
}

func (h *harness) wantMessages(owner job.Owner, id conversation.ID, want ...string) {
	h.Helper()
	if got := h.all(owner, id); strings.Join(got, "|") != strings.Join(want, "|") {
		h.Fatalf("the messages are %q, want %q", got, want)
	}
}

func wantCode(t *testing.T, err error, want job.Code) {
	t.Helper()
	if job.CodeOf(err) != want {
		t.Fatalf("error %v, want the code %q", err, want)
	}
}
