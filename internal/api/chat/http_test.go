package chat

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

func TestQuestionIsAcceptedAndAnswered(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "how high?")
	task, conv := a.text("task_id"), a.text("conversation_id")
	a.want(t, 202, "status", "processing", "queue_position", 0, "estimated_time_seconds", nil,
		"urls.status", "/api/chat/status/"+task, "urls.cancel", "/api/chat/cancel/"+task,
		"urls.events", "/v1/jobs/"+task+"/events", "urls.ws", "/ws")
	if got := a.header.Get("Location"); got != "/api/chat/status/"+task {
		t.Fatalf("Location is %q", got)
	}
	status := "/api/chat/status/" + task
	w := h.next()
	if got, want := string(w.claimed.Input), `{"messages":[{"role":"user","content":"how high?"}]}`; got != want || w.claimed.Job.Key != "ann" {
		t.Fatalf("the worker got %s of key %s", got, w.claimed.Job.Key)
	}
	h.get("ann", status).want(t, 200, "status", "processing", "progress.percent", 0, "progress.status", "Working", "result", nil, "error", nil)
	w.report(30, "Generating response")
	w.text("so ")
	h.get("ann", status).want(t, 200, "progress.percent", 30, "progress.status", "Generating response", "content", "so ")
	w.done("so high")
	h.get("ann", status).want(t, 200, "status", "completed", "progress.percent", 100, "progress.status", "Complete",
		"result.answer", "so high", "result.conversation_id", conv, "error", nil, "content", "so high")
	h.get("ann", "/api/conversations/"+conv+"/messages").want(t, 200, "object", "list", "next", nil,
		"data.0.role", "user", "data.0.content", "how high?", "data.0.task_id", task,
		"data.1.role", "assistant", "data.1.content", "so high", "data.1.status", "completed", "data.2", nil)
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0.id", conv, "conversations.0.title", "how high?", "conversations.1", nil, "next", nil)
}

func TestWaitingQuestionHasPosition(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	h.ask("ann", "first")
	h.ask("ann", "second")
	a := h.ask("ann", "third").want(t, 202, "queue_position", 1)
	h.get("ann", a.text("urls.status")).want(t, 200, "status", "processing", "progress.percent", 0, "progress.status", "Waiting", "queue_position", 1)
}

func TestPromptIncludesConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	conv := h.ask("ann", "1").text("conversation_id")
	h.next().done("one")
	h.call("ann", "POST", "/api/chat", `{"query":"2","conversation_id":"`+conv+`","model":"m"}`).want(t, 202, "conversation_id", conv)
	want := `{"model":"m","messages":[{"role":"user","content":"1"},{"role":"assistant","content":"one"},{"role":"user","content":"2"}]}`
	if got := string(h.next().claimed.Input); got != want {
		t.Fatalf("the worker got %s, want %s", got, want)
	}
}

func TestFailedTaskIsReadable(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	w.report(30, "Generating response")
	w.text("half")
	w.fail("upstream_error")
	h.get("ann", a.text("urls.status")).want(t, 200, "status", "failed", "progress.percent", 30, "progress.status", "Failed", "result", nil,
		"error.code", "upstream_error", "error.message", "it failed", "content", "half")
	h.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200,
		"data.1.status", "failed", "data.1.content", "half", "data.1.error.code", "upstream_error")
	h.ask("ann", "again", a.text("conversation_id"))
}

func TestCancelKeepsPartialAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	w.text("half an answ")
	cancelled := make(chan answer, 1)
	go func() { cancelled <- h.call("ann", "POST", a.text("urls.cancel"), "") }()
	if cancelled := <-h.cancels; cancelled != w.claimed.Job.ID {
		t.Fatalf("the worker got an order to cancel %s", cancelled)
	}
	h.get("ann", a.text("urls.status")).want(t, 200, "status", "processing", "outcome", nil, "cancel_requested", true, "progress.status", "Cancelling")
	w.finish(job.Outcome{Cancelled: true})
	want := []any{"status", "cancelled", "outcome", "cancelled", "error.code", "cancelled", "result", nil, "content", "half an answ"}
	(<-cancelled).want(t, 200, want...)
	h.call("ann", "POST", a.text("urls.cancel"), "{}").want(t, 200, want...)
	h.get("ann", a.text("urls.status")).want(t, 200, "status", "failed", "outcome", "cancelled", "progress.status", "Cancelled", "error.code", "cancelled")
	h.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200, "data.1.status", "failed", "data.1.outcome", "cancelled", "data.1.content", "half an answ")
}

// A worker that does not stop in time: the cancel is accepted, and not held for longer.
func TestCancelIsHeldForAMoment(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	h.api.cancelHold = time.Millisecond
	a := h.ask("ann", "q")
	w := h.next()
	h.call("ann", "POST", a.text("urls.cancel"), "").want(t, 202, "status", "processing", "cancel_requested", true)
	w.finish(job.Outcome{Cancelled: true})
	h.call("ann", "POST", a.text("urls.cancel"), "").want(t, 200, "status", "cancelled")
}

// A cancel that comes too late says how the task ended.
func TestCancelOfEndedTaskHasItsOutcome(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	h.next().done("a")
	h.call("ann", "POST", a.text("urls.cancel"), "").want(t, 200, "status", "completed", "outcome", "completed", "result.answer", "a")
}

func TestCancelEndsWaitingQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	h.ask("ann", "first")
	a := h.ask("ann", "second")
	h.call("ann", "POST", a.text("urls.cancel"), "").want(t, 200, "status", "cancelled", "content", "")
	h.ask("ann", "third", a.text("conversation_id"))
}

// A cancel that is on disk succeeds, even when the reads after it fail.
func TestCancelSucceedsWhenReadFails(t *testing.T) {
	t.Parallel()
	var failing atomic.Bool
	h := newHarnessWithFaults(t, 0, faulty.Plan{
		Read: func(string) error {
			if failing.Load() {
				return errors.New("the disk does not answer")
			}
			return nil
		},
		Commit: func(_ int, b *store.Batch) faulty.Fault {
			if len(b.Cancels) == 0 {
				return faulty.Fault{}
			}
			return faulty.Fault{After: func() { failing.Store(true) }}
		},
	})
	task := h.ask("ann", "q").text("task_id")
	h.call("ann", "POST", "/api/chat/cancel/"+task, "").want(t, 200, "status", "cancelled", "content", "", "error.code", "cancelled")
}

func TestConversationAcceptsOneQuestionAtATime(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	conv := h.call("ann", "POST", "/api/conversations", "").want(t, 201).text("id")
	const clients = 8
	answers := make([]answer, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			answers[i] = h.call("ann", "POST", "/api/chat", fmt.Sprintf(`{"query":"%d","conversation_id":"%s"}`, i, conv))
		})
	}
	all.Wait()
	task := h.next().id()
	taken := 0
	for _, a := range answers {
		if a.status == http.StatusAccepted {
			taken++
			a.want(t, 202, "task_id", task)
			continue
		}
		a.want(t, 409, "code", "conflict", "task_id", task)
	}
	if taken != 1 || len(h.work) > 0 {
		t.Fatalf("%d questions were accepted, and %d more jobs made", taken, len(h.work))
	}
	h.get("ann", "/api/conversations/"+conv+"/messages").want(t, 200, "data.1.task_id", task, "data.2", nil)
}

func TestReloadedPageResumesAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	messages := "/api/conversations/" + a.text("conversation_id") + "/messages"
	h.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.content", "", "data.1.cursor", 0)
	w := h.next()
	w.text("void ")
	w.append(job.KindAttempt, `{"attempt":2}`, nil)
	w.report(30, "Generating response")
	w.text("one ")
	w.text("twö ")
	page := h.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.content", "one twö ", "data.1.cursor", 5, "data.1.task_id", w.id())

	client := h.dial("ann")
	client.send(`{"type":"watch","task_id":"%s","after":%s}`, w.id(), page.text("data.1.cursor"))
	client.read().want(t, 0, "type", "progress", "percent", 30, "seq", 5)
	w.text("three")
	client.read().want(t, 0, "type", "delta", "text", "three", "seq", 6)
	w.done("one twö three")
	client.read().want(t, 0, "type", "progress", "percent", 100)
	client.read().want(t, 0, "type", "chat_response", "answer", "one twö three")
}

func TestRetriedTaskIsFollowed(t *testing.T) {
	t.Parallel()
	for _, retry := range []struct {
		rule string
		do   func(*harness, job.ID) error
	}{
		{"one", func(h *harness, id job.ID) error {
			_, err := h.engine.Retry(background, job.Owner{User: "ann"}, id)
			return err
		}},
		{"many", func(h *harness, _ job.ID) error {
			n, err := h.engine.ChangeMany(background, engine.RetryAll, job.Filter{Owner: job.Owner{User: "ann"}, Status: job.Failed})
			if err == nil && n != 1 {
				return fmt.Errorf("%d were retried", n)
			}
			return err
		}},
	} {
		t.Run(retry.rule, func(t *testing.T) {
			h := newHarness(t, 1)
			a := h.ask("ann", "q")
			messages := "/api/conversations/" + a.text("conversation_id") + "/messages"
			w := h.next()
			w.text("half")
			w.fail("upstream_error")
			h.get("ann", messages).want(t, 200, "data.1.status", "failed", "data.1.content", "half", "data.1.error.code", "upstream_error")
			if err := retry.do(h, w.claimed.Job.ID); err != nil {
				t.Fatal(err)
			}
			h.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.error", nil, "data.1.cursor", 1)
			h.call("ann", "POST", "/api/chat", `{"query":"q","conversation_id":"`+a.text("conversation_id")+`"}`).want(t, 409, "task_id", w.id())

			w = h.next()
			w.append(job.KindAttempt, `{"attempt":1}`, nil)
			w.text("who")
			page := h.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.content", "who", "data.1.cursor", 3)
			client := h.dial("ann")
			client.send(`{"type":"watch","task_id":"%s","after":%s}`, w.id(), page.text("data.1.cursor"))
			client.read().want(t, 0, "type", "progress", "percent", 0, "seq", 3)
			w.text("le")
			client.read().want(t, 0, "type", "delta", "text", "le", "seq", 4)
			w.done("whole")
			client.readUntil("chat_response").want(t, 0, "answer", "whole")
			h.get("ann", messages).want(t, 200, "data.1.status", "completed", "data.1.content", "whole", "data.1.error", nil, "data.2", nil)
		})
	}
}

// A client that follows an ended attempt still reads its end after a retry.
func TestEarlierEndIsReadableAfterRetry(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	h.ask("ann", "q")
	w := h.next()
	w.text("half")
	w.fail("upstream_error")
	failed, err := h.engine.Get(background, job.Owner{User: "ann"}, w.claimed.Job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.engine.Retry(background, job.Owner{User: "ann"}, failed.ID); err != nil {
		t.Fatal(err)
	}
	m, err := h.api.answerMessage(background, &failed.Job)
	if err != nil || m.Status != conversation.Failed || m.Content != "half" || m.Error == nil || m.Error.Code != "upstream_error" {
		t.Fatalf("the answer is %+v, %v", m, err)
	}
}

func TestRepeatedKeyReturnsSameTask(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	ask := func(user, body, key string) answer {
		return h.call(user, "POST", "/api/chat", body, "Idempotency-Key", key)
	}
	first := ask("ann", `{"query":"q"}`, "k").want(t, 202)
	same := []any{"task_id", first.text("task_id"), "conversation_id", first.text("conversation_id")}
	ask("ann", `{"query":"q"}`, "k").want(t, 202, same...)
	ask("ann", `{"query":"other"}`, "k").want(t, 422, "code", "idempotency_mismatch")
	ask("ann", `{"query":"q","model":"m"}`, "k").want(t, 422)
	if other := ask("bob", `{"query":"q"}`, "k").want(t, 202); other.text("task_id") == first.text("task_id") {
		t.Fatal("bob's key found ann's job")
	}
	h.next().done("a")
	ask("ann", `{"query":"q"}`, "k").want(t, 202, append(same, "status", "completed")...)
	h.get("ann", "/api/conversations").want(t, 200, "conversations.1", nil)

	// A repeated question is not a second one, although the conversation is busy.
	body := `{"query":"q","conversation_id":"` + first.text("conversation_id") + `"}`
	second := ask("ann", body, "k2").want(t, 202)
	ask("ann", body, "k2").want(t, 202, "task_id", second.text("task_id"))
	ask("ann", body, "k3").want(t, 409, "task_id", second.text("task_id"))
}

func TestDeleteConversationDeletesAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	conv := "/api/conversations/" + a.text("conversation_id")
	w := h.next()
	w.text("half")
	h.call("ann", "DELETE", conv, "").want(t, 204)
	if cancelled := <-h.cancels; cancelled != w.claimed.Job.ID {
		t.Fatalf("the worker got an order to cancel %s", cancelled)
	}
	h.get("ann", conv+"/messages").want(t, 404, "code", "not_found")
	w.finish(job.Outcome{Cancelled: true})
	h.get("ann", conv+"/messages").want(t, 404)
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0", nil)
	h.call("ann", "DELETE", conv, "").want(t, 404)
	h.get("ann", a.text("urls.status")).want(t, 404)
}

// This holds for the current answer and for an older one that is retried.
func TestDeleteConversationDeletesPrompts(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 2)
	ann := job.Owner{User: "ann"}
	first := h.ask("ann", "a secret")
	conv := first.text("conversation_id")
	w := h.next()
	w.fail("upstream_error")
	second := h.ask("ann", "another secret", conv)
	h.next().done("fine")
	if _, err := h.engine.Retry(background, ann, w.claimed.Job.ID); err != nil {
		t.Fatal(err)
	}
	w = h.next()
	w.text("half")
	h.call("ann", "POST", "/api/chat", `{"query":"q","conversation_id":"`+conv+`"}`).want(t, 409, "code", "conflict", "task_id", first.text("task_id"))

	h.call("ann", "DELETE", "/api/conversations/"+conv, "").want(t, 204)
	if cancelled := <-h.cancels; cancelled != w.claimed.Job.ID {
		t.Fatalf("the worker got an order to cancel %s", cancelled)
	}
	for _, task := range []answer{first, second} {
		h.get("ann", task.text("urls.status")).want(t, 404)
	}
	w.finish(job.Outcome{Cancelled: true})
	h.get("ann", first.text("urls.status")).want(t, 404)
}

// Earlier versions kept the jobs of a deleted conversation.
func TestAnswerWithoutConversationIsReadable(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	w.text("the answer")
	w.done("the answer")
	id, err := conversation.ParseID(a.text("conversation_id"))
	if err == nil {
		err = h.conversations.Delete(background, job.Owner{User: "ann"}, id, func([]job.ID) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	h.get("ann", a.text("urls.status")).want(t, 200, "status", "completed", "result.answer", "the answer")
}

func TestAnswerOfDeletedJobIsCancelled(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	if err := h.engine.Delete(background, job.Owner{User: "ann"}, w.claimed.Job.ID); err != nil {
		t.Fatal(err)
	}
	messages := "/api/conversations/" + a.text("conversation_id") + "/messages"
	h.get("ann", messages).want(t, 200, "data.1.status", "failed", "data.1.outcome", "cancelled")
	h.call("ann", "DELETE", "/api/conversations/"+a.text("conversation_id"), "").want(t, 204)
}

func TestChatIsHiddenFromOtherUsers(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	task, conv := a.text("task_id"), a.text("conversation_id")
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/chat/status/" + task, ""},
		{"POST", "/api/chat/cancel/" + task, ""},
		{"GET", "/api/conversations/" + conv + "/messages", ""},
		{"DELETE", "/api/conversations/" + conv, ""},
		{"POST", "/api/chat", `{"query":"q","conversation_id":"` + conv + `"}`},
	} {
		h.call("bob", c.method, c.path, c.body).want(t, 404, "code", "not_found")
	}
	h.get("bob", "/api/conversations").want(t, 200, "conversations.0", nil)
	client := h.dial("bob")
	client.send(`{"type":"watch","task_id":"%s"}`, task)
	client.read().want(t, 0, "type", "error", "code", "not_found", "task_id", task)
	client.send(`{"type":"cancel","task_id":"%s"}`, task)
	client.read().want(t, 0, "type", "error", "code", "not_found", "task_id", task)
	client.send(`{"type":"chat_query","query":"q","conversation_id":"%s","client_id":"1"}`, conv)
	client.read().want(t, 0, "type", "error", "code", "not_found", "client_id", "1")
	if len(h.cancels) > 0 {
		t.Fatal("bob cancelled ann's job")
	}
	h.get("ann", "/api/chat/status/"+task).want(t, 200, "status", "processing")
}

func TestOtherJobIsNotATask(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	snap, _, err := h.engine.Submit(background, engine.Request{Owner: job.Owner{User: "ann"}, Queue: "other", Input: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	h.get("ann", "/api/chat/status/"+snap.ID.String()).want(t, 404)
	h.call("ann", "POST", "/api/chat/cancel/"+snap.ID.String(), "").want(t, 404)
	client := h.dial("ann")
	client.send(`{"type":"watch","task_id":"%s"}`, snap.ID)
	client.read().want(t, 0, "type", "error", "code", "not_found")
}

func TestBadInputStoresNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	foreign := job.NewID().String()
	conv := "conv_" + strings.TrimPrefix(foreign, "job_")
	long := strings.Repeat("x", maxQuery)
	for _, c := range []struct {
		rule, method, path, body string
		status                   int
		code                     string
	}{
		{"no body", "POST", "/api/chat", ``, 400, "invalid_request"},
		{"not JSON", "POST", "/api/chat", `query=q`, 400, "invalid_request"},
		{"not an object", "POST", "/api/chat", `"q"`, 400, "invalid_request"},
		{"no query", "POST", "/api/chat", `{}`, 400, "invalid_request"},
		{"an empty query", "POST", "/api/chat", `{"query":""}`, 400, "invalid_request"},
		{"a blank query", "POST", "/api/chat", `{"query":" \n\t\u00a0"}`, 400, "invalid_request"},
		{"a query that is a number", "POST", "/api/chat", `{"query":1}`, 400, "invalid_request"},
		{"a query that is too long", "POST", "/api/chat", `{"query":"` + long + `x"}`, 400, "invalid_request"},
		{"a query with a NUL", "POST", "/api/chat", `{"query":"a\u0000"}`, 400, "invalid_request"},
		{"a query of invalid UTF-8", "POST", "/api/chat", "{\"query\":\"\xff\"}", 400, "invalid_request"},
		{"a body that is too large", "POST", "/api/chat", `{"query":"` + strings.Repeat(long, 7) + `"}`, 413, "too_large"},
		{"a model that is too long", "POST", "/api/chat", `{"query":"q","model":"` + long[:maxModel+1] + `"}`, 400, "invalid_request"},
		{"an unknown field", "POST", "/api/chat", `{"query":"q","temperature":1}`, 400, "invalid_request"},
		{"an unknown conversation", "POST", "/api/chat", `{"query":"q","conversation_id":"` + conv + `"}`, 404, "not_found"},
		{"a conversation id that is too long", "POST", "/api/chat", `{"query":"q","conversation_id":"` + long[:129] + `"}`, 400, "invalid_request"},
		{"a conversation id that no path can name", "POST", "/api/chat", `{"query":"q","conversation_id":"/"}`, 400, "invalid_request"},
		{"a conversation id that is not printable", "POST", "/api/chat", `{"query":"q","conversation_id":"a\n"}`, 400, "invalid_request"},
		{"an unknown conversation by its name", "GET", "/api/conversations/conv123", ``, 404, "not_found"},
		{"an unknown parameter", "POST", "/api/chat?wait=1", `{"query":"q"}`, 400, "invalid_request"},
		{"another method", "GET", "/api/chat", ``, 405, "method_not_allowed"},
		{"an unknown task", "GET", "/api/chat/status/" + foreign, ``, 404, "not_found"},
		{"an invalid task id", "GET", "/api/chat/status/1", ``, 404, "not_found"},
		{"an unknown task to cancel", "POST", "/api/chat/cancel/" + foreign, ``, 404, "not_found"},
		{"a cancel with a body", "POST", "/api/chat/cancel/" + foreign, `{"x":1}`, 400, "invalid_request"},
		{"a cancel with a large body", "POST", "/api/chat/cancel/" + foreign, long, 413, "too_large"},
		{"a limit of 0", "GET", "/api/conversations?limit=0", ``, 400, "invalid_request"},
		{"a limit that is too large", "GET", "/api/conversations?limit=101", ``, 400, "invalid_request"},
		{"a limit with a fraction", "GET", "/api/conversations?limit=1.5", ``, 400, "invalid_request"},
		{"an empty limit", "GET", "/api/conversations?limit=", ``, 400, "invalid_request"},
		{"an invalid cursor", "GET", "/api/conversations?after=x", ``, 400, "invalid_request"},
		{"a parameter given twice", "GET", "/api/conversations?limit=1&limit=2", ``, 400, "invalid_request"},
		{"an unknown parameter of a list", "GET", "/api/conversations?page=1", ``, 400, "invalid_request"},
		{"a broken parameter", "GET", "/api/conversations?limit=%zz", ``, 400, "invalid_request"},
		{"a title that is too long", "POST", "/api/conversations", `{"title":"` + long[:201] + `"}`, 400, "invalid_request"},
		{"an unknown field of a conversation", "POST", "/api/conversations", `{"name":"x"}`, 400, "invalid_request"},
		{"messages of an unknown conversation", "GET", "/api/conversations/" + conv + "/messages", ``, 404, "not_found"},
		{"messages of an invalid conversation id", "GET", "/api/conversations/x/messages", ``, 404, "not_found"},
		{"messages before an invalid cursor", "GET", "/api/conversations/" + conv + "/messages?before=x", ``, 400, "invalid_request"},
		{"messages before a cursor of another conversation", "GET", "/api/conversations/" + conv + "/messages?before=msg_00000000000000000000000000_000001", ``, 400, "invalid_request"},
		{"a delete of an unknown conversation", "DELETE", "/api/conversations/" + conv, ``, 404, "not_found"},
		{"a heartbeat with a large body", "POST", "/api/heartbeat", long, 413, "too_large"},
		{"a socket request without a handshake", "GET", "/ws", ``, 426, "upgrade_required"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			a := h.call("ann", c.method, c.path, c.body).want(t, c.status, "code", c.code)
			if a.text("detail") == "" || a.text("error") != a.text("detail") || a.header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("answered with %v", a.body)
			}
		})
	}
	for _, key := range []string{"", strings.Repeat("k", job.MaxKey+1), "a\tb"} {
		h.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Idempotency-Key", key).want(t, 400, "code", "invalid_request")
	}
	h.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Idempotency-Key", "a", "Idempotency-Key", "b").want(t, 400)
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0", nil)
	if len(h.work) > 0 {
		t.Fatal("a job was made")
	}
	h.call("ann", "POST", "/api/chat", `{"query":"`+long+`"}`).want(t, 202)
}

func TestAnyContentTypeIsAccepted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"} {
		h.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Content-Type", kind).want(t, 202)
	}
}

func TestOtherOriginIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	h.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Origin", "https://example.com").want(t, 403, "code", "forbidden")
	h.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Origin", h.url).want(t, 202)
}

func TestListsHavePages(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	for i := range 5 {
		h.call("ann", "POST", "/api/conversations", fmt.Sprintf(`{"title":"%d"}`, i)).want(t, 201, "title", i)
	}
	first := h.get("ann", "/api/conversations?limit=2").want(t, 200, "conversations.0.title", 4, "conversations.1.title", 3, "conversations.2", nil)
	second := h.get("ann", "/api/conversations?limit=2&after="+first.text("next")).want(t, 200, "conversations.0.title", 2, "conversations.1.title", 1)
	h.get("ann", "/api/conversations?limit=2&after="+second.text("next")).want(t, 200, "conversations.0.title", 0, "conversations.1", nil, "next", nil)

	conv := first.text("conversations.0.id")
	for i := range 2 {
		h.ask("ann", fmt.Sprint("q", i), conv)
		h.next().done(fmt.Sprint("a", i))
	}
	messages := "/api/conversations/" + conv + "/messages?limit=3"
	newest := h.get("ann", messages).want(t, 200, "data.0.content", "a0", "data.1.content", "q1", "data.2.content", "a1")
	h.get("ann", messages+"&before="+newest.text("next")).want(t, 200, "data.0.content", "q0", "data.1", nil, "next", nil)
}

// A message that was pending when it was read is shown with the answer that has arrived
// since.
func TestMessagesShowAnswerThatEndsDuringRead(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	ann := job.Owner{User: "ann"}
	h.ask("ann", "q")
	w := h.next()
	id, _ := conversation.AnswerIDOf(&w.claimed.Job)
	stale, err := h.conversations.Message(background, ann, id)
	if err != nil || stale.Status != conversation.Processing {
		t.Fatal(stale, err)
	}
	w.done("all")
	view, err := h.api.viewWithOutput(background, ann, stale)
	if err != nil || view.Content != "all" || view.Status != conversation.Completed || view.Cursor != nil {
		t.Fatal(view, err)
	}
}

func TestReadsDoNotWaitForWrites(t *testing.T) {
	t.Parallel()
	var blockCommits atomic.Bool
	began, gate := make(chan struct{}, 1), make(chan struct{})
	h := newHarnessWithFaults(t, 1, faulty.Plan{Commit: func(int, *store.Batch) faulty.Fault {
		if !blockCommits.Load() {
			return faulty.Fault{}
		}
		return faulty.Fault{Before: func() {
			select {
			case began <- struct{}{}:
			default:
			}
			<-gate
		}}
	}})
	a := h.ask("ann", "q")
	w := h.next()
	w.text("half")
	blockCommits.Store(true)
	asked := make(chan answer, 1)
	go func() { asked <- h.call("ann", "POST", "/api/chat", `{"query":"q2"}`) }()
	<-began
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0.id", a.text("conversation_id"), "conversations.1", nil)
	h.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200, "data.1.content", "half")
	h.get("ann", a.text("urls.status")).want(t, 200, "content", "half")
	h.call("ann", "POST", "/api/heartbeat", "").want(t, 200)
	blockCommits.Store(false)
	close(gate)
	(<-asked).want(t, 202)
}

// Every second commit is applied or not, and reports an unknown outcome. The engine
// commits it again, and no question, answer or delete is lost or done twice.
func TestConversationSurvivesUnknownCommits(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	h := newHarnessWithFaults(t, 1, faulty.Plan{Commit: func(_ int, b *store.Batch) faulty.Fault {
		// The engine commits dues at times that the test cannot know. While such a commit
		// fails, it accepts no question.
		if b.Len() == len(b.Dues) {
			return faulty.Fault{}
		}
		return faulty.Fault{Step: []faulty.Step{faulty.LostAfterCommit, faulty.None, faulty.LostBeforeCommit, faulty.None}[asked.Add(1)%4]}
	}})
	conv := h.call("ann", "POST", "/api/conversations", "").want(t, 201).text("id")
	for i := range 6 {
		h.ask("ann", fmt.Sprint("q", i), conv)
		w := h.next()
		w.text("a")
		w.text(fmt.Sprint(i))
		w.done(fmt.Sprint("a", i))
	}
	page := h.get("ann", "/api/conversations/"+conv+"/messages").want(t, 200, "data.12", nil)
	for i := range 6 {
		page.want(t, 200, fmt.Sprintf("data.%d.content", 2*i), fmt.Sprint("q", i), fmt.Sprintf("data.%d.content", 2*i+1), fmt.Sprint("a", i))
	}
	for range 4 {
		deletedID := h.call("ann", "POST", "/api/conversations", "").want(t, 201).text("id")
		h.call("ann", "DELETE", "/api/conversations/"+deletedID, "").want(t, 204)
	}
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0.id", conv, "conversations.1", nil)
}

func TestHeartbeatReturnsExpiry(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	ann := job.Owner{User: "ann"}
	if h.beats.count(ann) > 0 {
		t.Fatal("ann is here already")
	}
	h.call("ann", "POST", "/api/heartbeat", "").want(t, 200, "status", "ok", "expires_in_s", 60)
	if h.beats.count(ann) != 1 || h.beats.count(job.Owner{User: "bob"}) > 0 {
		t.Fatal("ann is not here, or bob is")
	}
}
