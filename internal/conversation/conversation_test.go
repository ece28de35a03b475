package conversation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func TestSubmitStoresQuestionAndEndStoresAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "how high?")
	h.wantMessages(ann, id, "user: how high?", "assistant:  [processing]")
	h.answer(task, "so high")
	h.wantMessages(ann, id, "user: how high?", "assistant: so high [completed]")

	_, task = h.ask(ann, id, "and how wide?")
	h.answer(task, "so wide")
	h.wantMessages(ann, id, "user: how high?", "assistant: so high [completed]",
		"user: and how wide?", "assistant: so wide [completed]")
}

func TestEveryEndWritesAnswer(t *testing.T) {
	t.Parallel()
	failure := &job.Failure{Code: "upstream_error", Message: "the model is away"}
	for _, c := range []struct {
		rule string
		end  store.Finish
		want string
		code string
	}{
		{"a success gives the text of the completion", store.Finish{To: job.Succeeded, Result: completion("done")}, "done [completed]", ""},
		{"for a result that is not a completion the answer is the output", store.Finish{To: job.Succeeded, Result: &job.Result{Body: []byte("x")}}, "half an [completed]", ""},
		{"a completion without text gives an empty answer", store.Finish{To: job.Succeeded, Result: &job.Result{Body: []byte(`{"choices":[{"message":{"content":null}}]}`)}}, " [completed]", ""},
		{"without a result the answer is the output", store.Finish{To: job.Succeeded}, "half an [completed]", ""},
		{"a failure keeps the output, and the error", store.Finish{To: job.Failed, Failure: failure}, "half an [failed]", "upstream_error"},
		{"a cancel keeps the output", store.Finish{To: job.Cancelled}, "half an [cancelled]", "cancelled"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			h := newHarness(t)
			id, task := h.ask(ann, conversation.ID{}, "q")
			h.appendText(task, 1, "half ")
			h.appendText(task, 2, "an")
			h.end(task, c.end)
			h.wantMessages(ann, id, "user: q", "assistant: "+c.want)
			page, _, err := h.Messages(ctx, ann, id, conversation.MessageID{}, 1)
			if err != nil {
				t.Fatal(err)
			}
			switch e := page[0].Error; {
			case c.code == "" && e != nil:
				t.Fatalf("it has the error %v", e)
			case c.code != "" && (e == nil || e.Code != c.code || e.Message == ""):
				t.Fatalf("its error is %v, want the code %s", e, c.code)
			}
		})
	}
}

func TestLongAnswerIsTruncated(t *testing.T) {
	t.Parallel()
	long := "a" + strings.Repeat("é", conversation.MaxAnswer)
	for _, from := range []string{"result", "output"} {
		t.Run(from, func(t *testing.T) {
			h := newHarness(t)
			id, task := h.ask(ann, conversation.ID{}, "q")
			if from == "result" {
				h.answer(task, long)
			} else {
				h.appendText(task, 1, long)
				h.end(task, store.Finish{To: job.Cancelled})
			}
			m, err := h.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2})
			if err != nil {
				t.Fatal(err)
			}
			if !m.Truncated || len(m.Content) != conversation.MaxAnswer-1 || !strings.HasPrefix(long, m.Content) {
				t.Fatalf("%d bytes are kept, truncated %v", len(m.Content), m.Truncated)
			}
		})
	}
}

func TestAnsweringConversationRefusesQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "first")
	op := h.submit(ann, h.begin(ann, id, "second"))
	wantCode(t, op.Err, job.Conflict)
	if pending, ok := conversation.TaskOf(op.Conflict); !ok || pending != task {
		t.Fatalf("the refusal names %s, want %s", pending, task)
	}
	h.answer(task, "yes")
	h.ask(ann, id, "third")
	h.wantMessages(ann, id, "user: first", "assistant: yes [completed]", "user: third", "assistant:  [processing]")
}

func TestConcurrentQuestionsSubmitOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "zero")
	h.answer(task, "0")
	one, two := h.begin(ann, id, "one"), h.begin(ann, id, "two")
	first, second := h.submit(ann, one), h.submit(ann, two)
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	wantCode(t, second.Err, job.Conflict)
	h.wantMessages(ann, id, "user: zero", "assistant: 0 [completed]", "user: one", "assistant:  [processing]")
}

func TestStaleTurnIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "zero")
	stale := h.begin(ann, id, "stale")
	h.answer(task, "0")
	wantCode(t, h.submit(ann, stale).Err, job.Conflict)
}

func TestDeletedConversationRefusesQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	made, err := h.Create(ctx, ann, "")
	if err != nil {
		t.Fatal(err)
	}
	turn := h.begin(ann, made.ID, "q")
	if err := h.Delete(ctx, ann, made.ID, nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.submit(ann, turn).Err, job.NotFound)
	_, err = h.Begin(ctx, ann, made.ID.String(), "q")
	wantCode(t, err, job.NotFound)
}

func TestDeletedConversationStaysDeleted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, first := h.ask(ann, conversation.ID{}, "p")
	h.answer(first, "done")
	_, task := h.ask(ann, id, "q")
	h.delete(id)
	h.wantGone(id, first, task)
	h.answer(task, "late")
	h.wantGone(id, first, task)
	_, _, err := h.Messages(ctx, ann, id, conversation.MessageID{}, 10)
	wantCode(t, err, job.NotFound)
	_, err = h.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2})
	wantCode(t, err, job.NotFound)
	wantCode(t, h.Delete(ctx, ann, id, h.remove), job.NotFound)
}

func TestFailedDeleteKeepsMessages(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, _ := h.ask(ann, conversation.ID{}, "q")
	refused := errors.New("refused")
	if err := h.Delete(ctx, ann, id, func([]job.ID) error { return refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	h.wantMessages(ann, id, "user: q", "assistant:  [processing]")
}

// A delete that was interrupted by a crash is repeated.
func TestRepeatedDeleteContinues(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, first := h.ask(ann, conversation.ID{}, "1")
	h.answer(first, "one")
	_, second := h.ask(ann, id, "2")
	if err := h.remove([]job.ID{first}); err != nil {
		t.Fatal(err)
	}
	h.delete(id)
	h.wantGone(id, first, second)
}

func TestDeleteRemovesJobsOfEveryPage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var id conversation.ID
	var tasks []job.ID
	for i := range 60 {
		var task job.ID
		id, task = h.ask(ann, id, fmt.Sprint(i))
		h.answer(task, "a")
		tasks = append(tasks, task)
	}
	other, kept := h.ask(ann, conversation.ID{}, "another")
	h.delete(id)
	h.wantGone(id, tasks...)
	h.wantMessages(ann, other, "user: another", "assistant:  [processing]")
	if _, err := h.store.Job(ctx, ann, kept); err != nil {
		t.Fatal(err)
	}
}

// The question is asked between the reads and the write of the delete.
func TestDeleteRemovesConcurrentQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, first := h.ask(ann, conversation.ID{}, "first")
	h.answer(first, "in time")
	var second job.ID
	err := h.Delete(ctx, ann, id, func(tasks []job.ID) error {
		if second == (job.ID{}) {
			_, second = h.ask(ann, id, "second")
		}
		return h.remove(tasks)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.wantGone(id, first, second)
}

// A retry that comes before the delete of its job is deleted with it; one that comes
// after finds no job.
func TestDeleteRemovesConcurrentlyRetriedAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "q")
	h.end(task, store.Finish{To: job.Failed})
	before, after := &store.Retry{Owner: ann, ID: task}, &store.Retry{Owner: ann, ID: task}
	err := h.Delete(ctx, ann, id, func(tasks []job.ID) error {
		h.commit(&store.Batch{Retries: []*store.Retry{before}})
		err := h.remove(tasks)
		h.commit(&store.Batch{Retries: []*store.Retry{after}})
		return err
	})
	if err != nil || before.Err != nil {
		t.Fatal(err, before.Err)
	}
	wantCode(t, after.Err, job.NotFound)
	h.wantGone(id, task)
}

func TestConcurrentEndAndDeleteLeaveNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "q")
	err := h.Delete(ctx, ann, id, func(tasks []job.ID) error {
		h.commit(&store.Batch{
			Finishes: []*store.Finish{{Lease: h.leaseOf(task), To: job.Succeeded, Result: completion("a")}},
			Deletes:  []*store.Delete{{Owner: ann, ID: task}},
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.wantGone(id, task)
}

func TestRetriedOlderAnswerRefusesQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, first := h.ask(ann, conversation.ID{}, "first")
	h.end(first, store.Finish{To: job.Cancelled})
	_, second := h.ask(ann, id, "second")
	h.answer(second, "2")
	early := h.begin(ann, id, "begun before the retry")
	h.retry(first)
	for _, turn := range []conversation.Turn{early, h.begin(ann, id, "begun after it")} {
		op := h.submit(ann, turn)
		wantCode(t, op.Err, job.Conflict)
		if pending, ok := conversation.TaskOf(op.Conflict); !ok || pending != first {
			t.Fatalf("the refusal names %s, want %s", pending, first)
		}
	}
	h.answer(first, "1")
	h.ask(ann, id, "third")
	h.wantMessages(ann, id, "user: first", "assistant: 1 [completed]", "user: second", "assistant: 2 [completed]",
		"user: third", "assistant:  [processing]")
}

func TestRetryInSameBatchRefusesQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, first := h.ask(ann, conversation.ID{}, "first")
	h.end(first, store.Finish{To: job.Failed})
	turn, task := h.begin(ann, id, "second"), job.NewID()
	ask := &store.Submit{Job: job.Job{ID: task, Owner: ann, Queue: "chat", Refs: turn.Refs()}, Rows: turn.Rows(task)}
	retry := &store.Retry{Owner: ann, ID: first}
	h.commit(&store.Batch{Submits: []*store.Submit{ask}, Retries: []*store.Retry{retry}})
	if retry.Err != nil {
		t.Fatal(retry.Err)
	}
	wantCode(t, ask.Err, job.Conflict)
	h.wantMessages(ann, id, "user: first", "assistant:  [processing]")
}

func TestAnsweringEndsWithLastRetriedAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var id conversation.ID
	var tasks []job.ID
	for range 3 {
		var task job.ID
		id, task = h.ask(ann, id, "q")
		h.end(task, store.Finish{To: job.Failed})
		tasks = append(tasks, task)
	}
	for _, task := range tasks {
		h.retry(task)
	}
	for _, task := range []job.ID{tasks[1], tasks[2], tasks[0]} {
		wantCode(t, h.submit(ann, h.begin(ann, id, "too early")).Err, job.Conflict)
		h.answer(task, "a")
	}
	h.ask(ann, id, "now")
}

// withoutAnswering removes the answering rows, as an earlier version left a conversation.
func (h *harness) withoutAnswering(id conversation.ID) {
	h.Helper()
	if err := h.Write(ctx, store.Row{Kind: "answering", Parent: "/ann/" + id.String(), Action: store.RemoveAll}); err != nil {
		h.Fatal(err)
	}
}

func TestConversationWithoutAnsweringRowsRefusesQuestion(t *testing.T) {
	t.Parallel()
	for retried, older := range map[string]bool{"the newest answer": false, "an older answer": true} {
		t.Run(retried, func(t *testing.T) {
			h := newHarness(t)
			id, task := h.ask(ann, conversation.ID{}, "first")
			h.end(task, store.Finish{To: job.Failed})
			if older {
				_, second := h.ask(ann, id, "second")
				h.answer(second, "2")
			}
			h.retry(task)
			h.withoutAnswering(id)

			op := h.submit(ann, h.begin(ann, id, "too early"))
			wantCode(t, op.Err, job.Conflict)
			if pending, ok := conversation.TaskOf(op.Conflict); !ok || pending != task {
				t.Fatalf("the refusal names %s, want %s", pending, task)
			}
			h.answer(task, "1")
			_, last := h.ask(ann, id, "now")
			h.withoutAnswering(id)
			h.delete(id)
			h.wantGone(id, task, last)
		})
	}
}

func TestRetriedJobRewritesItsAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "first")
	h.end(task, store.Finish{To: job.Failed, Failure: &job.Failure{Code: "c", Message: "m"}})
	_, second := h.ask(ann, id, "second")
	h.answer(second, "2")

	h.retry(task)
	h.answer(task, "1")
	h.wantMessages(ann, id, "user: first", "assistant: 1 [completed]", "user: second", "assistant: 2 [completed]")
}

func TestRetryMakesAnswerPending(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "first")
	h.appendText(task, 1, "half")
	h.end(task, store.Finish{To: job.Failed, Failure: &job.Failure{Code: "c", Message: "m"}})
	h.wantMessages(ann, id, "user: first", "assistant: half [failed]")

	retry := &store.Retry{Owner: ann, ID: task}
	h.commit(&store.Batch{Retries: []*store.Retry{retry}})
	if retry.Err != nil {
		t.Fatal(retry.Err)
	}
	h.wantMessages(ann, id, "user: first", "assistant:  [processing]")
	if m, err := h.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2}); err != nil || m.Error != nil || m.Task != task {
		t.Fatalf("the message is %v, %v", m, err)
	}
	wantCode(t, h.submit(ann, h.begin(ann, id, "second")).Err, job.Conflict)
}

// An earlier version kept the jobs of a deleted conversation. Their retry restores nothing.
func TestRetryDoesNotRestoreDeletedAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "q")
	h.end(task, store.Finish{To: job.Cancelled})
	if err := h.Delete(ctx, ann, id, func([]job.ID) error { return nil }); err != nil {
		t.Fatal(err)
	}
	retry := &store.Retry{Owner: ann, ID: task}
	h.commit(&store.Batch{Retries: []*store.Retry{retry}})
	if retry.Err != nil {
		t.Fatal(retry.Err)
	}
	rows, err := h.store.Rows(ctx, store.RowSet{Owner: ann, Kind: "answering", Parent: id.String()}, store.RowPage{Limit: 1})
	if err != nil || len(rows) > 0 {
		t.Fatalf("the rows %q are there, %v", rows, err)
	}
	_, err = h.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2})
	wantCode(t, err, job.NotFound)
}

func TestOwnersSeeOnlyTheirConversations(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, _ := h.ask(ann, conversation.ID{}, "q")
	for _, other := range []job.Owner{bob, {Tenant: "ann"}, {Tenant: "ann", User: ""}, {User: "ann/"}, {Tenant: "t", User: "ann"}} {
		_, err := h.Get(ctx, other, id)
		wantCode(t, err, job.NotFound)
		_, _, err = h.Messages(ctx, other, id, conversation.MessageID{}, 10)
		wantCode(t, err, job.NotFound)
		_, err = h.Message(ctx, other, conversation.MessageID{Conversation: id, Number: 1})
		wantCode(t, err, job.NotFound)
		_, err = h.Begin(ctx, other, id.String(), "q")
		wantCode(t, err, job.NotFound)
		wantCode(t, h.Delete(ctx, other, id, nil), job.NotFound)
		page, _, err := h.List(ctx, other, "", 10)
		if err != nil || len(page) > 0 {
			t.Fatal(page, err)
		}
	}
}

func TestListIsNewestFirst(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var made []conversation.ID
	for i := range 7 {
		c, err := h.Create(ctx, ann, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, c.ID)
	}
	var listed []conversation.ID
	for after := ""; ; {
		page, next, err := h.List(ctx, ann, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			listed = append(listed, c.ID)
		}
		if after = next; next == "" {
			break
		}
	}
	if len(listed) != len(made) {
		t.Fatalf("%d were listed, want %d", len(listed), len(made))
	}
	for i := range listed {
		if listed[i] != made[len(made)-1-i] {
			t.Fatalf("listed %v, want the reverse of %v", listed, made)
		}
	}
}

func TestMessagesPageBackwards(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := conversation.ID{}
	var want []string
	for i := range 4 {
		var task job.ID
		id, task = h.ask(ann, id, fmt.Sprint("q", i))
		h.answer(task, fmt.Sprint("a", i))
		want = append(want, fmt.Sprint("q", i), fmt.Sprint("a", i))
	}
	var got []string
	for before, more := (conversation.MessageID{}), true; more; {
		var page []conversation.Message
		var err error
		if page, more, err = h.Messages(ctx, ann, id, before, 3); err != nil {
			t.Fatal(err)
		}
		var part []string
		for _, m := range page {
			part = append(part, m.Content)
		}
		got, before = append(part, got...), page[0].ID
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestTitleIsGivenOrFirstQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	long := strings.Repeat("ü", 100)
	for _, c := range []struct{ title, question, want string }{
		{"", "  what\n is it? ", "what is it?"},
		{"mine", "what is it?", "mine"},
		{"", "a" + long, "a" + long[:78] + "…"},
	} {
		made, err := h.Create(ctx, ann, c.title)
		if err != nil {
			t.Fatal(err)
		}
		h.ask(ann, made.ID, c.question)
		got, err := h.Get(ctx, ann, made.ID)
		if err != nil || got.Title != c.want {
			t.Fatalf("title %q (%v), want %q", got.Title, err, c.want)
		}
	}
}

// prompt returns the messages of the turn's prompt, each as "role: content".
func prompt(t *testing.T, turn conversation.Turn) string {
	t.Helper()
	var body struct {
		Messages []struct{ Role, Content string }
	}
	if err := json.Unmarshal(turn.Prompt("m"), &body); err != nil {
		t.Fatal(err)
	}
	var messages []string
	for _, m := range body.Messages {
		messages = append(messages, m.Role[:1]+":"+m.Content)
	}
	return strings.Join(messages, " ")
}

func TestPromptContainsHistory(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id, task := h.ask(ann, conversation.ID{}, "1")
	h.answer(task, "one")
	_, task = h.ask(ann, id, "2") // without an answer
	h.end(task, store.Finish{To: job.Failed})
	_, task = h.ask(ann, id, "3")
	h.appendText(task, 1, "thr")
	h.end(task, store.Finish{To: job.Cancelled})

	want := "u:1 a:one u:3 a:thr u:4"
	if got := prompt(t, h.begin(ann, id, "4")); got != want {
		t.Fatalf("the prompt is %q, want %q", got, want)
	}
}

func TestPromptKeepsNewestTurnsThatFit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	big := strings.Repeat("x", 50<<10)
	id := conversation.ID{}
	for _, answer := range []string{"0", big, big, "3"} {
		var task job.ID
		id, task = h.ask(ann, id, "q")
		h.answer(task, answer)
	}
	want := "u:q a:0 u:q a:" + big + " u:q a:" + big + " u:q a:3 u:now"
	if got := prompt(t, h.begin(ann, id, "now")); got != want {
		t.Fatalf("the prompt is %d bytes, want all %d", len(got), len(want))
	}
	_, task := h.ask(ann, id, "q")
	h.answer(task, big)
	want = "u:q a:" + big + " u:q a:3 u:q a:" + big + " u:now"
	if got := prompt(t, h.begin(ann, id, "now")); got != want {
		t.Fatalf("the prompt is %d bytes, want the newest %d", len(got), len(want))
	}
}

func TestPromptNamesModelOnlyIfGiven(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	turn := h.begin(ann, conversation.ID{}, "q \"<é>\"")
	for model, want := range map[string]string{
		"":  `{"messages":[{"role":"user","content":"q \"<é>\""}]}`,
		"m": `{"model":"m","messages":[{"role":"user","content":"q \"<é>\""}]}`,
	} {
		if got := string(turn.Prompt(model)); got != want {
			t.Errorf("prompt %s, want %s", got, want)
		}
	}
}

// put writes a message row with any body.
func (h *harness) put(id conversation.MessageID, body string) {
	h.Helper()
	row := store.Row{Owner: ann, Kind: "message", Parent: id.Conversation.String(), ID: id.String(), Body: []byte(body)}
	if err := h.Write(ctx, row); err != nil {
		h.Fatal(err)
	}
}

func TestFullConversationRefusesQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	made, err := h.Create(ctx, ann, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := `{"role":"assistant","task":"` + job.NewID().String() + `","status":"completed"}`
	h.put(conversation.MessageID{Conversation: made.ID, Number: conversation.MaxMessages - 2}, ended)
	h.ask(ann, made.ID, "the last")
	h.put(conversation.MessageID{Conversation: made.ID, Number: conversation.MaxMessages}, ended)
	_, err = h.Begin(ctx, ann, made.ID.String(), "one more")
	wantCode(t, err, job.TooLarge)
}

func TestDamagedRowIsInternalError(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, body := range []string{"", "{", `{"role":"user"}`, `{"task":"job_"}`, `[]`} {
		made, err := h.Create(ctx, ann, "")
		if err != nil {
			t.Fatal(err)
		}
		h.put(conversation.MessageID{Conversation: made.ID, Number: 1}, body)
		_, _, err = h.Messages(ctx, ann, made.ID, conversation.MessageID{}, 10)
		wantCode(t, err, job.Internal)
	}
}

func TestParseIDRejectsOtherSpellings(t *testing.T) {
	t.Parallel()
	id := conversation.ID(job.NewUUID())
	m := conversation.MessageID{Conversation: id, Number: 12}
	if got, err := conversation.ParseID(id.String()); err != nil || got != id {
		t.Fatal(got, err)
	}
	if got, ok := conversation.ParseMessageID(m.String()); !ok || got != m {
		t.Fatal(got, ok)
	}
	good := m.String()
	for _, bad := range []string{
		"", "msg_", "conv_", id.String() + "x", strings.ToUpper(id.String()), job.NewID().String(),
		good + "0", good[:len(good)-1], strings.TrimPrefix(good, "msg_"), strings.Replace(good, "_0000", "_+000", 1),
		strings.Replace(good, "_000012", "_000000", 1), strings.Replace(good, "_000012", "_-00012", 1), strings.ToUpper(good),
	} {
		if _, err := conversation.ParseID(bad); job.CodeOf(err) != job.NotFound {
			t.Errorf("the conversation %q: %v", bad, err)
		}
		if m, ok := conversation.ParseMessageID(bad); ok {
			t.Errorf("the message %q is read as %v", bad, m)
		}
	}
}

// A job of another API, with references of its own, leaves no message.
func TestJobWithoutReferenceWritesNoAnswer(t *testing.T) {
	t.Parallel()
	for _, refs := range [][]string{nil, {""}, {"resp_1", "msg_"}, {"msg_zzz_000001"}} {
		f := conversation.AtEnd(store.End{
			Job: job.Job{State: job.Succeeded, Refs: refs}, Text: func(int) string { return "text" },
		})
		if f.Rows != nil || f.Jobs != nil {
			t.Errorf("the refs %q leave %v", refs, f)
		}
	}
}
