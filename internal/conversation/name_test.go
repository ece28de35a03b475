package conversation_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// askNamed asks a question to a conversation with a public id, which it returns with its job.
func (h *harness) askNamed(owner job.Owner, public, query string) (conversation.ID, job.ID) {
	h.Helper()
	op := h.submit(owner, h.beginNamed(owner, public, query))
	if op.Err != nil {
		h.Fatal(op.Err)
	}
	if got := conversation.PublicIDOf(&op.Job); got != public {
		h.Fatalf("the job answers the conversation %q, want %q", got, public)
	}
	answer, _ := conversation.AnswerIDOf(&op.Job)
	return answer.Conversation, op.Job.ID
}

func TestUnusedNameBeginsConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for i, name := range []string{
		"conv123", "x", " ", ".", "..", "a/b", "a//b", "a%2Fb", "?q#f", "messages", "naïve", "nai\u0308ve", "CONV123", "日本語",
		"conv_", "conv_0", strings.ToUpper("conv_06gzv0hv4nx3x2tbamncww1dcw"), "conv_06gzv0hv4nx3x2tbamncww1dcu", "msg_06gzv0hv4nx3x2tbamncww1dcw_000001",
		"conversation x", strings.Repeat("n", conversation.MaxName),
	} {
		question := fmt.Sprint("q", i)
		id, task := h.askNamed(ann, name, question)
		h.answer(task, "a")
		again, task := h.askNamed(ann, name, "more")
		h.answer(task, "b")
		if again != id {
			t.Fatalf("%q: the second question began another conversation", name)
		}
		h.wantMessages(ann, id, "user: "+question, "assistant: a [completed]", "user: more", "assistant: b [completed]")
		found, err := h.Resolve(ctx, ann, name)
		if err != nil || found != id {
			t.Fatalf("%q is resolved as %v, %v", name, found, err)
		}
		c, err := h.Get(ctx, ann, id)
		if err != nil || c.PublicID() != name || c.Title != question {
			t.Fatalf("%q is stored as %+v, %v", name, c, err)
		}
	}
}

func TestBadNameIsInvalid(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, name := range []string{"\x00", "a\nb", "a\x7f", "\u200b", "\xff", "a\u2028", strings.Repeat("n", conversation.MaxName+1), strings.Repeat("é", 65)} {
		_, err := h.Begin(ctx, ann, name, "q")
		wantCode(t, err, job.Invalid)
		_, err = h.Resolve(ctx, ann, name)
		wantCode(t, err, job.NotFound)
	}
}

// An id of the form that the server makes is never a name.
func TestUnknownIDBeginsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	bobs, _ := h.ask(bob, conversation.ID{}, "q")
	for _, id := range []string{conversation.ID(job.NewUUID()).String(), bobs.String(), "conv_" + strings.Repeat("z", 26)} {
		_, err := h.Begin(ctx, ann, id, "q")
		wantCode(t, err, job.NotFound)
	}
}

func TestNameBelongsToItsOwner(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ids := map[conversation.ID]bool{}
	for _, owner := range []job.Owner{ann, bob, {Tenant: "ann"}, {Tenant: "t", User: "ann"}} {
		_, err := h.Resolve(ctx, owner, "conv123")
		wantCode(t, err, job.NotFound)
		id, _ := h.askNamed(owner, "conv123", "q of "+owner.User)
		ids[id] = true
		h.wantMessages(owner, id, "user: q of "+owner.User, "assistant:  [processing]")
	}
	if len(ids) != 4 {
		t.Fatalf("4 owners have %d conversations", len(ids))
	}
}

// Both turns begin before either is submitted.
func TestConcurrentFirstQuestionsBeginOneConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	one, two := h.beginNamed(ann, "conv123", "one"), h.beginNamed(ann, "conv123", "two")
	first, second := h.submit(ann, one), h.submit(ann, two)
	if first.Err != nil || !two.IsNew() {
		t.Fatal(first.Err, two.IsNew())
	}
	wantCode(t, second.Err, job.Conflict)
	second = h.submit(ann, h.beginNamed(ann, "conv123", "two"))
	wantCode(t, second.Err, job.Conflict)
	if task, ok := conversation.TaskOf(second.Conflict); !ok || task != first.Job.ID {
		t.Fatalf("the refusal names %s, want %s", task, first.Job.ID)
	}
	h.answer(first.Job.ID, "1")
	id, task := h.askNamed(ann, "conv123", "two")
	h.answer(task, "2")
	h.wantMessages(ann, id, "user: one", "assistant: 1 [completed]", "user: two", "assistant: 2 [completed]")
	page, _, err := h.List(ctx, ann, "", 10)
	if err != nil || len(page) != 1 || page[0].PublicID() != "conv123" {
		t.Fatal(page, err)
	}
}

func TestDeletedNameIsUnknownForADay(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	now := time.Now()
	h.SetNow(func() time.Time { return now })
	first, task := h.askNamed(ann, "conv123", "one")
	h.answer(task, "1")
	stale := h.beginNamed(ann, "conv123", "too late")
	h.delete(first)
	h.wantGone(first, task)
	wantCode(t, h.submit(ann, stale).Err, job.NotFound)
	for _, after := range []time.Duration{0, time.Hour, 24*time.Hour - time.Second} {
		now = now.Truncate(time.Millisecond)
		later := now.Add(after)
		h.SetNow(func() time.Time { return later })
		_, err := h.Begin(ctx, ann, "conv123", "q")
		wantCode(t, err, job.NotFound)
		_, err = h.Resolve(ctx, ann, "conv123")
		wantCode(t, err, job.NotFound)
	}
	h.askNamed(bob, "conv123", "bob's is another")

	later := now.Add(24 * time.Hour)
	h.SetNow(func() time.Time { return later })
	one, two := h.beginNamed(ann, "conv123", "one"), h.beginNamed(ann, "conv123", "two")
	op := h.submit(ann, one)
	if op.Err != nil {
		t.Fatal(op.Err)
	}
	if err := h.submit(ann, two).Err; job.CodeOf(err) != job.Conflict && job.CodeOf(err) != job.NotFound {
		t.Fatalf("a second conversation began: %v", err)
	}
	second, err := h.Resolve(ctx, ann, "conv123")
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	h.wantMessages(ann, second, "user: one", "assistant:  [processing]")

	// While a turn waits, another client begins the conversation and deletes it.
	waiting := h.beginNamed(ann, "new", "waiting")
	third, _ := h.askNamed(ann, "new", "q")
	h.delete(third)
	wantCode(t, h.submit(ann, waiting).Err, job.Conflict)
	_, err = h.Begin(ctx, ann, "new", "q")
	wantCode(t, err, job.NotFound)
}

// What is left of deleted names goes with the deletes of other names, a day later.
func TestDeletedNamesAreForgotten(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	now := time.Now()
	h.SetNow(func() time.Time { return now })
	left := func() (n int) {
		for i := range 12 {
			rows, err := h.store.Rows(ctx, store.RowSet{Owner: ann, Kind: "conversation_name", Parent: fmt.Sprint("n", i)}, store.RowPage{Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			n += len(rows)
		}
		rows, err := h.store.Rows(ctx, store.RowSet{Owner: ann, Kind: "conversation_deleted_name"}, store.RowPage{Limit: 100})
		if err != nil || len(rows) != n {
			t.Fatalf("%d names are left, and %d are listed, %v", n, len(rows), err)
		}
		return n
	}
	for i := range 12 {
		id, _ := h.askNamed(ann, fmt.Sprint("n", i), "q")
		h.delete(id)
	}
	if n := left(); n != 12 {
		t.Fatalf("%d names are left", n)
	}
	now = now.Add(25 * time.Hour)
	id, _ := h.askNamed(ann, "n11", "a new one")
	stale := h.beginNamed(ann, "n0", "q") // the delete forgets the name that this turn has read
	h.delete(id)
	if n := left(); n != 2 {
		t.Fatalf("%d names are left, want n10 and n11", n)
	}
	if op := h.submit(ann, stale); op.Err == nil {
		t.Fatal("a turn took a name that was forgotten since")
	}
	h.askNamed(ann, "n0", "q")
}

func TestListIsInTheOrderOfLastMessages(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	list := func() string {
		t.Helper()
		page, _, err := h.List(ctx, ann, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		last := time.Now().Add(time.Hour)
		for _, c := range page {
			got, err := h.Get(ctx, ann, c.ID)
			if err != nil || got != c || c.LastMessage.After(last) {
				t.Fatalf("%+v is listed as %+v, %v", got, c, err)
			}
			names, last = append(names, c.PublicID()), c.LastMessage
		}
		return strings.Join(names, " ")
	}
	want := func(rule, want string) {
		t.Helper()
		if got := list(); got != want {
			t.Fatalf("%s: the list is %s, want %s", rule, got, want)
		}
		// Two messages of one millisecond have no order.
		for at := time.Now().UnixMilli(); time.Now().UnixMilli() == at; {
			runtime.Gosched()
		}
	}
	_, slow := h.askNamed(ann, "a", "1")
	want("one", "a")
	b, quick := h.askNamed(ann, "b", "1")
	want("a question of another conversation", "b a")
	h.end(slow, store.Finish{To: job.Failed})
	want("an answer", "a b")
	h.answer(quick, "1")
	want("another answer", "b a")
	h.retry(slow)
	h.answer(slow, "1")
	want("the end of a retried answer moves nothing", "b a")
	_, next := h.askNamed(ann, "a", "2")
	want("a further question", "a b")
	h.delete(b)
	want("a delete", "a")
	h.answer(next, "2")
	want("after a delete", "a")
	made, err := h.Create(ctx, ann, "empty")
	if err != nil {
		t.Fatal(err)
	}
	want("an empty conversation", made.PublicID()+" a")
	a, err := h.Resolve(ctx, ann, "a")
	if err != nil {
		t.Fatal(err)
	}
	h.delete(a)
	h.delete(made.ID)
	want("none", "")
}
