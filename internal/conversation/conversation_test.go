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

func TestAQuestionIsStoredWithItsJobAndTheAnswerWithItsEnd(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "how high?")
	d.wantSaid(ann, id, "user: how high?", "assistant:  [processing]")
	d.answer(task, "so high")
	d.wantSaid(ann, id, "user: how high?", "assistant: so high [completed]")

	_, task = d.ask(ann, id, "and how wide?")
	d.answer(task, "so wide")
	d.wantSaid(ann, id, "user: how high?", "assistant: so high [completed]",
		"user: and how wide?", "assistant: so wide [completed]")
}

func TestEveryEndLeavesItsMark(t *testing.T) {
	failure := &job.Failure{Code: "upstream_error", Message: "the model is away"}
	for _, c := range []struct {
		rule string
		end  store.Finish
		want string
		code string
	}{
		{"a success is the completion's text", store.Finish{To: job.Succeeded, Result: completion("done")}, "done [completed]", ""},
		{"a result that is no completion is what was said", store.Finish{To: job.Succeeded, Result: &job.Result{Body: []byte("x")}}, "half an [completed]", ""},
		{"a completion without text is an empty answer", store.Finish{To: job.Succeeded, Result: &job.Result{Body: []byte(`{"choices":[{"message":{"content":null}}]}`)}}, " [completed]", ""},
		{"no result is what was said", store.Finish{To: job.Succeeded}, "half an [completed]", ""},
		{"a failure keeps what was said, and why it failed", store.Finish{To: job.Failed, Failure: failure}, "half an [failed]", "upstream_error"},
		{"a cancel keeps what was said", store.Finish{To: job.Cancelled}, "half an [cancelled]", "cancelled"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			d := newDesk(t)
			id, task := d.ask(ann, conversation.ID{}, "q")
			d.say(task, 1, "half ")
			d.say(task, 2, "an")
			d.end(task, c.end)
			d.wantSaid(ann, id, "user: q", "assistant: "+c.want)
			page, _, err := d.Messages(ctx, ann, id, conversation.MessageID{}, 1)
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

func TestAnAnswerThatIsTooLongIsCutBetweenCharactersAndSaysSo(t *testing.T) {
	long := "a" + strings.Repeat("é", conversation.MaxAnswer)
	for _, from := range []string{"result", "output"} {
		t.Run(from, func(t *testing.T) {
			d := newDesk(t)
			id, task := d.ask(ann, conversation.ID{}, "q")
			if from == "result" {
				d.answer(task, long)
			} else {
				d.say(task, 1, long)
				d.end(task, store.Finish{To: job.Cancelled})
			}
			m, err := d.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2})
			if err != nil {
				t.Fatal(err)
			}
			if !m.Truncated || len(m.Content) != conversation.MaxAnswer-1 || !strings.HasPrefix(long, m.Content) {
				t.Fatalf("%d bytes are kept, truncated %v", len(m.Content), m.Truncated)
			}
		})
	}
}

func TestAConversationThatIsAnsweringRefusesAnotherQuestion(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "first")
	op := d.submit(ann, d.begin(ann, id, "second"))
	wantCode(t, op.Err, job.Conflict)
	if pending, ok := conversation.TaskOf(op.Conflict); !ok || pending != task {
		t.Fatalf("the refusal names %s, want %s", pending, task)
	}
	d.answer(task, "yes")
	d.ask(ann, id, "third")
	d.wantSaid(ann, id, "user: first", "assistant: yes [completed]", "user: third", "assistant:  [processing]")
}

func TestOfTwoQuestionsThatSawTheSameOneIsAsked(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "zero")
	d.answer(task, "0")
	one, two := d.begin(ann, id, "one"), d.begin(ann, id, "two")
	first, second := d.submit(ann, one), d.submit(ann, two)
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	wantCode(t, second.Err, job.Conflict)
	d.wantSaid(ann, id, "user: zero", "assistant: 0 [completed]", "user: one", "assistant:  [processing]")
}

func TestAQuestionThatDidNotSeeTheLastAnswerIsNotAsked(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "zero")
	stale := d.begin(ann, id, "stale")
	d.answer(task, "0")
	wantCode(t, d.submit(ann, stale).Err, job.Conflict)
}

func TestAQuestionToADeletedConversationIsNotAsked(t *testing.T) {
	d := newDesk(t)
	made, err := d.Create(ctx, ann, "")
	if err != nil {
		t.Fatal(err)
	}
	turn := d.begin(ann, made.ID, "q")
	if err := d.Delete(ctx, ann, made.ID, nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, d.submit(ann, turn).Err, job.NotFound)
	_, err = d.Begin(ctx, ann, made.ID, "q")
	wantCode(t, err, job.NotFound)
}

func TestWhatIsDeletedDoesNotComeBack(t *testing.T) {
	d := newDesk(t)
	id, first := d.ask(ann, conversation.ID{}, "p")
	d.answer(first, "done")
	_, task := d.ask(ann, id, "q")
	d.delete(id)
	d.wantGone(id, first, task)
	d.answer(task, "late")
	d.wantGone(id, first, task)
	_, _, err := d.Messages(ctx, ann, id, conversation.MessageID{}, 10)
	wantCode(t, err, job.NotFound)
	_, err = d.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2})
	wantCode(t, err, job.NotFound)
	wantCode(t, d.Delete(ctx, ann, id, d.remove), job.NotFound)
}

func TestADeleteThatCannotRemoveItsJobsKeepsTheMessages(t *testing.T) {
	d := newDesk(t)
	id, _ := d.ask(ann, conversation.ID{}, "q")
	refused := errors.New("refused")
	if err := d.Delete(ctx, ann, id, func([]job.ID) error { return refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	d.wantSaid(ann, id, "user: q", "assistant:  [processing]")
}

// A delete that a crash cut short is asked again.
func TestADeleteGoesOnWhereAnotherStopped(t *testing.T) {
	d := newDesk(t)
	id, first := d.ask(ann, conversation.ID{}, "1")
	d.answer(first, "one")
	_, second := d.ask(ann, id, "2")
	if err := d.remove([]job.ID{first}); err != nil {
		t.Fatal(err)
	}
	d.delete(id)
	d.wantGone(id, first, second)
}

func TestADeleteRemovesTheJobsOfEveryPage(t *testing.T) {
	d := newDesk(t)
	var id conversation.ID
	var tasks []job.ID
	for i := range 60 {
		var task job.ID
		id, task = d.ask(ann, id, fmt.Sprint(i))
		d.answer(task, "a")
		tasks = append(tasks, task)
	}
	other, kept := d.ask(ann, conversation.ID{}, "another")
	d.delete(id)
	d.wantGone(id, tasks...)
	d.wantSaid(ann, other, "user: another", "assistant:  [processing]")
	if _, err := d.store.Job(ctx, ann, kept); err != nil {
		t.Fatal(err)
	}
}

// The question comes between the delete's look and its write.
func TestADeleteRemovesAQuestionThatCameBetween(t *testing.T) {
	d := newDesk(t)
	id, first := d.ask(ann, conversation.ID{}, "first")
	d.answer(first, "in time")
	var second job.ID
	err := d.Delete(ctx, ann, id, func(tasks []job.ID) error {
		if second == (job.ID{}) {
			_, second = d.ask(ann, id, "second")
		}
		return d.remove(tasks)
	})
	if err != nil {
		t.Fatal(err)
	}
	d.wantGone(id, first, second)
}

// A retry that comes before the delete of its job is deleted with it; one that comes
// after finds no job.
func TestADeleteRemovesAnAnswerThatIsRetriedMeanwhile(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "q")
	d.end(task, store.Finish{To: job.Failed})
	before, after := &store.Retry{Owner: ann, ID: task}, &store.Retry{Owner: ann, ID: task}
	err := d.Delete(ctx, ann, id, func(tasks []job.ID) error {
		d.commit(&store.Batch{Retries: []*store.Retry{before}})
		err := d.remove(tasks)
		d.commit(&store.Batch{Retries: []*store.Retry{after}})
		return err
	})
	if err != nil || before.Err != nil {
		t.Fatal(err, before.Err)
	}
	wantCode(t, after.Err, job.NotFound)
	d.wantGone(id, task)
}

func TestAnEndBesideADeleteLeavesNothing(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "q")
	err := d.Delete(ctx, ann, id, func(tasks []job.ID) error {
		d.commit(&store.Batch{
			Finishes: []*store.Finish{{Lease: d.leaseOf(task), To: job.Succeeded, Result: completion("a")}},
			Deletes:  []*store.Delete{{Owner: ann, ID: task}},
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.wantGone(id, task)
}

func TestAConversationWhoseOlderAnswerIsRetriedRefusesAnotherQuestion(t *testing.T) {
	d := newDesk(t)
	id, first := d.ask(ann, conversation.ID{}, "first")
	d.end(first, store.Finish{To: job.Cancelled})
	_, second := d.ask(ann, id, "second")
	d.answer(second, "2")
	early := d.begin(ann, id, "begun before the retry")
	d.retry(first)
	for _, turn := range []conversation.Turn{early, d.begin(ann, id, "begun after it")} {
		op := d.submit(ann, turn)
		wantCode(t, op.Err, job.Conflict)
		if pending, ok := conversation.TaskOf(op.Conflict); !ok || pending != first {
			t.Fatalf("the refusal names %s, want %s", pending, first)
		}
	}
	d.answer(first, "1")
	d.ask(ann, id, "third")
	d.wantSaid(ann, id, "user: first", "assistant: 1 [completed]", "user: second", "assistant: 2 [completed]",
		"user: third", "assistant:  [processing]")
}

func TestARetryBesideAQuestionInOneBatchComesFirst(t *testing.T) {
	d := newDesk(t)
	id, first := d.ask(ann, conversation.ID{}, "first")
	d.end(first, store.Finish{To: job.Failed})
	turn, task := d.begin(ann, id, "second"), job.NewID()
	ask := &store.Submit{Job: job.Job{ID: task, Owner: ann, Queue: "chat", Refs: []string{turn.Ref()}}, Rows: turn.Rows(task)}
	retry := &store.Retry{Owner: ann, ID: first}
	d.commit(&store.Batch{Submits: []*store.Submit{ask}, Retries: []*store.Retry{retry}})
	if retry.Err != nil {
		t.Fatal(retry.Err)
	}
	wantCode(t, ask.Err, job.Conflict)
	d.wantSaid(ann, id, "user: first", "assistant:  [processing]")
}

func TestAConversationIsAnsweringUntilTheLastOfItsRetriedAnswersEnds(t *testing.T) {
	d := newDesk(t)
	var id conversation.ID
	var tasks []job.ID
	for range 3 {
		var task job.ID
		id, task = d.ask(ann, id, "q")
		d.end(task, store.Finish{To: job.Failed})
		tasks = append(tasks, task)
	}
	for _, task := range tasks {
		d.retry(task)
	}
	for _, task := range []job.ID{tasks[1], tasks[2], tasks[0]} {
		wantCode(t, d.submit(ann, d.begin(ann, id, "too early")).Err, job.Conflict)
		d.answer(task, "a")
	}
	d.ask(ann, id, "now")
}

// withoutAnswering makes a conversation as it was kept before there were rows that say
// what it is answering.
func (d *desk) withoutAnswering(id conversation.ID) {
	d.Helper()
	if err := d.Write(ctx, store.Row{Kind: "answering", Parent: "/ann/" + id.String(), Action: store.RemoveAll}); err != nil {
		d.Fatal(err)
	}
}

func TestAConversationOfAnEarlierVersionIsAnswering(t *testing.T) {
	for retried, older := range map[string]bool{"the newest answer": false, "an older answer": true} {
		t.Run(retried, func(t *testing.T) {
			d := newDesk(t)
			id, task := d.ask(ann, conversation.ID{}, "first")
			d.end(task, store.Finish{To: job.Failed})
			if older {
				_, second := d.ask(ann, id, "second")
				d.answer(second, "2")
			}
			d.retry(task)
			d.withoutAnswering(id)

			op := d.submit(ann, d.begin(ann, id, "too early"))
			wantCode(t, op.Err, job.Conflict)
			if pending, ok := conversation.TaskOf(op.Conflict); !ok || pending != task {
				t.Fatalf("the refusal names %s, want %s", pending, task)
			}
			d.answer(task, "1")
			_, last := d.ask(ann, id, "now")
			d.withoutAnswering(id)
			d.delete(id)
			d.wantGone(id, task, last)
		})
	}
}

func TestAJobTriedAgainRewritesItsOwnAnswer(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "first")
	d.end(task, store.Finish{To: job.Failed, Failure: &job.Failure{Code: "c", Message: "m"}})
	_, second := d.ask(ann, id, "second")
	d.answer(second, "2")

	d.retry(task)
	d.answer(task, "1")
	d.wantSaid(ann, id, "user: first", "assistant: 1 [completed]", "user: second", "assistant: 2 [completed]")
}

func TestARetryMakesItsAnswerPendingAgain(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "first")
	d.say(task, 1, "half")
	d.end(task, store.Finish{To: job.Failed, Failure: &job.Failure{Code: "c", Message: "m"}})
	d.wantSaid(ann, id, "user: first", "assistant: half [failed]")

	retry := &store.Retry{Owner: ann, ID: task}
	d.commit(&store.Batch{Retries: []*store.Retry{retry}})
	if retry.Err != nil {
		t.Fatal(retry.Err)
	}
	d.wantSaid(ann, id, "user: first", "assistant:  [processing]")
	if m, err := d.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2}); err != nil || m.Error != nil || m.Task != task {
		t.Fatalf("the message is %v, %v", m, err)
	}
	wantCode(t, d.submit(ann, d.begin(ann, id, "second")).Err, job.Conflict)
}

// An earlier version left the jobs of a deleted conversation. Nothing of it comes back.
func TestARetryBringsNoDeletedAnswerBack(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "q")
	d.end(task, store.Finish{To: job.Cancelled})
	if err := d.Delete(ctx, ann, id, func([]job.ID) error { return nil }); err != nil {
		t.Fatal(err)
	}
	retry := &store.Retry{Owner: ann, ID: task}
	d.commit(&store.Batch{Retries: []*store.Retry{retry}})
	if retry.Err != nil {
		t.Fatal(retry.Err)
	}
	rows, err := d.store.Rows(ctx, store.RowSet{Owner: ann, Kind: "answering", Parent: id.String()}, store.RowPage{Limit: 1})
	if err != nil || len(rows) > 0 {
		t.Fatalf("the rows %q are there, %v", rows, err)
	}
	_, err = d.Message(ctx, ann, conversation.MessageID{Conversation: id, Number: 2})
	wantCode(t, err, job.NotFound)
}

func TestNothingIsAnyoneElses(t *testing.T) {
	d := newDesk(t)
	id, _ := d.ask(ann, conversation.ID{}, "q")
	for _, other := range []job.Owner{bob, {Tenant: "ann"}, {Tenant: "ann", User: ""}, {User: "ann/"}, {Tenant: "t", User: "ann"}} {
		_, err := d.Get(ctx, other, id)
		wantCode(t, err, job.NotFound)
		_, _, err = d.Messages(ctx, other, id, conversation.MessageID{}, 10)
		wantCode(t, err, job.NotFound)
		_, err = d.Message(ctx, other, conversation.MessageID{Conversation: id, Number: 1})
		wantCode(t, err, job.NotFound)
		_, err = d.Begin(ctx, other, id, "q")
		wantCode(t, err, job.NotFound)
		wantCode(t, d.Delete(ctx, other, id, nil), job.NotFound)
		page, _, err := d.List(ctx, other, conversation.ID{}, 10)
		if err != nil || len(page) > 0 {
			t.Fatal(page, err)
		}
	}
}

func TestConversationsAreListedNewestFirstAndEachOnce(t *testing.T) {
	d := newDesk(t)
	var made []conversation.ID
	for i := range 7 {
		c, err := d.Create(ctx, ann, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, c.ID)
	}
	var seen []conversation.ID
	for after, more := (conversation.ID{}), true; more; {
		var page []conversation.Conversation
		var err error
		if page, more, err = d.List(ctx, ann, after, 3); err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			seen, after = append(seen, c.ID), c.ID
		}
	}
	if len(seen) != len(made) {
		t.Fatalf("%d were listed, want %d", len(seen), len(made))
	}
	for i := range seen {
		if seen[i] != made[len(made)-1-i] {
			t.Fatalf("listed %v, want the reverse of %v", seen, made)
		}
	}
}

func TestMessagesArePagedBackwardsInTheOrderOfTheConversation(t *testing.T) {
	d := newDesk(t)
	id := conversation.ID{}
	var want []string
	for i := range 4 {
		var task job.ID
		id, task = d.ask(ann, id, fmt.Sprint("q", i))
		d.answer(task, fmt.Sprint("a", i))
		want = append(want, fmt.Sprint("q", i), fmt.Sprint("a", i))
	}
	var got []string
	for before, more := (conversation.MessageID{}), true; more; {
		var page []conversation.Message
		var err error
		if page, more, err = d.Messages(ctx, ann, id, before, 3); err != nil {
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

func TestAConversationIsTitledByItsMakerOrItsFirstQuestion(t *testing.T) {
	d := newDesk(t)
	long := strings.Repeat("ü", 100)
	for _, c := range []struct{ title, question, want string }{
		{"", "  what\n is it? ", "what is it?"},
		{"mine", "what is it?", "mine"},
		{"", "a" + long, "a" + long[:78] + "…"},
	} {
		made, err := d.Create(ctx, ann, c.title)
		if err != nil {
			t.Fatal(err)
		}
		d.ask(ann, made.ID, c.question)
		got, err := d.Get(ctx, ann, made.ID)
		if err != nil || got.Title != c.want {
			t.Fatalf("title %q (%v), want %q", got.Title, err, c.want)
		}
	}
}

// prompt is what the turn's model is sent, in a few words.
func prompt(t *testing.T, turn conversation.Turn) string {
	t.Helper()
	var body struct {
		Messages []struct{ Role, Content string }
	}
	if err := json.Unmarshal(turn.Prompt("m"), &body); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, m := range body.Messages {
		said = append(said, m.Role[:1]+":"+m.Content)
	}
	return strings.Join(said, " ")
}

func TestAModelIsToldWhatWasSaidBefore(t *testing.T) {
	d := newDesk(t)
	id, task := d.ask(ann, conversation.ID{}, "1")
	d.answer(task, "one")
	_, task = d.ask(ann, id, "2") // without an answer
	d.end(task, store.Finish{To: job.Failed})
	_, task = d.ask(ann, id, "3")
	d.say(task, 1, "thr")
	d.end(task, store.Finish{To: job.Cancelled})

	want := "u:1 a:one u:3 a:thr u:4"
	if got := prompt(t, d.begin(ann, id, "4")); got != want {
		t.Fatalf("the model is told %q, want %q", got, want)
	}
}

func TestOnlyTheNewestTurnsThatFitAreTold(t *testing.T) {
	d := newDesk(t)
	big := strings.Repeat("x", 50<<10)
	id := conversation.ID{}
	for _, answer := range []string{"0", big, big, "3"} {
		var task job.ID
		id, task = d.ask(ann, id, "q")
		d.answer(task, answer)
	}
	want := "u:q a:0 u:q a:" + big + " u:q a:" + big + " u:q a:3 u:now"
	if got := prompt(t, d.begin(ann, id, "now")); got != want {
		t.Fatalf("the model is told %d bytes, want all %d", len(got), len(want))
	}
	_, task := d.ask(ann, id, "q")
	d.answer(task, big)
	want = "u:q a:" + big + " u:q a:3 u:q a:" + big + " u:now"
	if got := prompt(t, d.begin(ann, id, "now")); got != want {
		t.Fatalf("the model is told %d bytes, want the newest %d", len(got), len(want))
	}
}

func TestThePromptNamesTheModelOnlyIfAsked(t *testing.T) {
	d := newDesk(t)
	turn := d.begin(ann, conversation.ID{}, "q \"<é>\"")
	for model, want := range map[string]string{
		"":  `{"messages":[{"role":"user","content":"q \"<é>\""}]}`,
		"m": `{"model":"m","messages":[{"role":"user","content":"q \"<é>\""}]}`,
	} {
		if got := string(turn.Prompt(model)); got != want {
			t.Errorf("prompt %s, want %s", got, want)
		}
	}
}

// put writes a message's row as it might be found.
func (d *desk) put(id conversation.MessageID, body string) {
	d.Helper()
	row := store.Row{Owner: ann, Kind: "message", Parent: id.Conversation.String(), ID: id.String(), Body: []byte(body)}
	if err := d.Write(ctx, row); err != nil {
		d.Fatal(err)
	}
}

func TestAConversationHoldsOnlySoMuch(t *testing.T) {
	d := newDesk(t)
	made, err := d.Create(ctx, ann, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := `{"role":"assistant","task":"` + job.NewID().String() + `","status":"completed"}`
	d.put(conversation.MessageID{Conversation: made.ID, Number: conversation.MaxMessages - 2}, ended)
	d.ask(ann, made.ID, "the last")
	d.put(conversation.MessageID{Conversation: made.ID, Number: conversation.MaxMessages}, ended)
	_, err = d.Begin(ctx, ann, made.ID, "one more")
	wantCode(t, err, job.TooLarge)
}

func TestARowThatCannotBeReadIsADefectOfOurs(t *testing.T) {
	d := newDesk(t)
	for _, body := range []string{"", "{", `{"role":"user"}`, `{"task":"job_"}`, `[]`} {
		made, err := d.Create(ctx, ann, "")
		if err != nil {
			t.Fatal(err)
		}
		d.put(conversation.MessageID{Conversation: made.ID, Number: 1}, body)
		_, _, err = d.Messages(ctx, ann, made.ID, conversation.MessageID{}, 10)
		wantCode(t, err, job.Internal)
	}
}

func TestIDsHaveOneText(t *testing.T) {
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
func TestOnlyQuestionsLeaveAnswers(t *testing.T) {
	for _, refs := range [][]string{nil, {""}, {"resp_1", "msg_"}, {"msg_zzz_000001"}} {
		f := conversation.AtEnd(store.End{
			Job: job.Job{State: job.Succeeded, Refs: refs}, Text: func(int) string { return "said" },
		})
		if f.Rows != nil || f.Jobs != nil {
			t.Errorf("the refs %q leave %v", refs, f)
		}
	}
}
