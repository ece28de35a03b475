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

// desk is a real store with conversations in it, and someone who commits one op at
// a time.
type desk struct {
	*testing.T
	*conversation.Conversations
	store *sqlite.Store
	lease map[job.ID]job.Token
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	s, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "jobs.db"),
		sqlite.Options{AtEnd: conversation.AtEnd, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	d := &desk{T: t, store: s, lease: map[job.ID]job.Token{}}
	d.Conversations = conversation.New(s, d)
	return d
}

func (d *desk) commit(b *store.Batch) {
	d.Helper()
	b.ID = store.NewBatch().ID
	if err := store.Commit(ctx, d.store, b); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) Write(_ context.Context, rows ...store.Row) error {
	op := &store.Write{Rows: rows}
	d.commit(&store.Batch{Writes: []*store.Write{op}})
	return op.Err
}

// submit stores a turn's job, leased at once.
func (d *desk) submit(owner job.Owner, turn conversation.Turn) *store.Submit {
	d.Helper()
	id, token := job.NewID(), job.NewToken()
	op := &store.Submit{
		Job: job.Job{
			ID: id, Owner: owner, Queue: "chat", Priority: 5, MaxAttempts: 1, Refs: []string{turn.Ref()},
			Policy: job.Policy{Timeouts: job.Timeouts{Lease: time.Minute}},
		},
		Input: turn.Prompt(""), Rows: turn.Rows(id),
		Token: token, LeaseFor: time.Minute, Worker: "desk",
	}
	d.commit(&store.Batch{Submits: []*store.Submit{op}})
	d.lease[id] = token
	return op
}

// ask asks a question and returns its job.
func (d *desk) ask(owner job.Owner, id conversation.ID, query string) (conversation.ID, job.ID) {
	d.Helper()
	turn := d.begin(owner, id, query)
	op := d.submit(owner, turn)
	if op.Err != nil {
		d.Fatal(op.Err)
	}
	answer, ok := conversation.AnswerIDOf(&op.Job)
	if !ok {
		d.Fatalf("the job refers to %q", op.Job.Refs)
	}
	return answer.Conversation, op.Job.ID
}

func (d *desk) begin(owner job.Owner, id conversation.ID, query string) conversation.Turn {
	d.Helper()
	turn, err := d.Begin(ctx, owner, id, query)
	if err != nil {
		d.Fatal(err)
	}
	return turn
}

// say appends text to a running job's output.
func (d *desk) say(task job.ID, seq int64, text string) {
	d.Helper()
	op := &store.Append{Lease: d.leaseOf(task), Entries: []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte(text)}}}
	d.commit(&store.Batch{Appends: []*store.Append{op}})
	if op.Err != nil {
		d.Fatal(op.Err)
	}
}

func (d *desk) end(task job.ID, f store.Finish) {
	d.Helper()
	f.Lease = d.leaseOf(task)
	d.commit(&store.Batch{Finishes: []*store.Finish{&f}})
	if f.Err != nil {
		d.Fatal(f.Err)
	}
}

func (d *desk) answer(task job.ID, text string) {
	d.Helper()
	d.end(task, store.Finish{To: job.Succeeded, Result: completion(text)})
}

// retry queues a job again and has it claimed.
func (d *desk) retry(task job.ID) {
	d.Helper()
	retry := &store.Retry{Owner: ann, ID: task}
	claim := &store.Claim{Queue: "chat", Worker: "desk", Tokens: []job.Token{job.NewToken()}, LeaseFor: time.Minute}
	d.commit(&store.Batch{Retries: []*store.Retry{retry}, Claims: []*store.Claim{claim}})
	if retry.Err != nil || len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != task {
		d.Fatal(retry.Err, claim.Claimed)
	}
	d.lease[task] = claim.Claimed[0].Token
}

// remove deletes jobs, as an engine does.
func (d *desk) remove(tasks []job.ID) error {
	b := &store.Batch{}
	for _, task := range tasks {
		b.Deletes = append(b.Deletes, &store.Delete{Owner: ann, ID: task})
	}
	d.commit(b)
	for _, op := range b.Deletes {
		if op.Err != nil && job.CodeOf(op.Err) != job.NotFound {
			return op.Err
		}
	}
	return nil
}

func (d *desk) delete(id conversation.ID) {
	d.Helper()
	if err := d.Delete(ctx, ann, id, d.remove); err != nil {
		d.Fatal(err)
	}
}

// wantGone checks that nothing of a conversation can be read: no row, and no job.
func (d *desk) wantGone(id conversation.ID, tasks ...job.ID) {
	d.Helper()
	_, err := d.Get(ctx, ann, id)
	wantCode(d.T, err, job.NotFound)
	for _, kind := range []string{"message", "answering"} {
		rows, err := d.store.Rows(ctx, store.RowSet{Owner: ann, Kind: kind, Parent: id.String()}, store.RowPage{Limit: 10})
		if err != nil || len(rows) > 0 {
			d.Fatalf("the rows %q are left, %v", rows, err)
		}
	}
	for _, task := range tasks {
		_, err := d.store.Job(ctx, ann, task)
		wantCode(d.T, err, job.NotFound)
		_, err = d.store.Input(ctx, ann, task)
		wantCode(d.T, err, job.NotFound)
	}
}

func (d *desk) leaseOf(task job.ID) job.Lease { return job.Lease{Job: task, Token: d.lease[task]} }

func completion(text string) *job.Result {
	content, _ := json.Marshal(text)
	return &job.Result{ContentType: "application/json", Body: fmt.Appendf(nil,
		`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%s}}]}`, content)}
}

// all is everything that was said in a conversation, in a few words.
func (d *desk) all(owner job.Owner, id conversation.ID) []string {
	d.Helper()
	page, more, err := d.Messages(ctx, owner, id, conversation.MessageID{}, 100)
	if err != nil || more {
		d.Fatal(more, err)
	}
	var said []string
	for _, m := range page {
		line := string(m.Role) + ": " + m.Content
		if m.Role == conversation.Assistant {
			line += " [" + string(m.Status) + "]"
		}
		said = append(said, line)
	}
	return said
}

func (d *desk) wantSaid(owner job.Owner, id conversation.ID, want ...string) {
	d.Helper()
	if got := d.all(owner, id); strings.Join(got, "|") != strings.Join(want, "|") {
		d.Fatalf("said %q, want %q", got, want)
	}
}

func wantCode(t *testing.T, err error, want job.Code) {
	t.Helper()
	if job.CodeOf(err) != want {
		t.Fatalf("error %v, want the code %q", err, want)
	}
}
