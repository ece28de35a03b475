package chat

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

func TestAQuestionIsAnsweredAtOnceAndReadWhenItIsDone(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "how high?")
	task, conv := a.text("task_id"), a.text("conversation_id")
	a.want(t, 202, "status", "processing", "queue_position", 0, "estimated_time_seconds", nil,
		"urls.status", "/api/chat/status/"+task, "urls.cancel", "/api/chat/cancel/"+task,
		"urls.events", "/v1/jobs/"+task+"/events", "urls.ws", "/ws")
	if got := a.header.Get("Location"); got != "/api/chat/status/"+task {
		t.Fatalf("Location is %q", got)
	}
	status := "/api/chat/status/" + task
	h := s.next()
	if got, want := string(h.claimed.Input), `{"messages":[{"role":"user","content":"how high?"}]}`; got != want || h.claimed.Job.Key != "ann" {
		t.Fatalf("the worker got %s of key %s", got, h.claimed.Job.Key)
	}
	s.get("ann", status).want(t, 200, "status", "processing", "progress.percent", 0, "progress.status", "Working", "result", nil, "error", nil)
	h.report(30, "Generating response")
	h.say("so ")
	s.get("ann", status).want(t, 200, "progress.percent", 30, "progress.status", "Generating response", "content", "so ")
	h.done("so high")
	s.get("ann", status).want(t, 200, "status", "completed", "progress.percent", 100, "progress.status", "Complete",
		"result.answer", "so high", "result.conversation_id", conv, "error", nil, "content", "so high")
	s.get("ann", "/api/conversations/"+conv+"/messages").want(t, 200, "object", "list", "next", nil,
		"data.0.role", "user", "data.0.content", "how high?", "data.0.task_id", task,
		"data.1.role", "assistant", "data.1.content", "so high", "data.1.status", "completed", "data.2", nil)
	s.get("ann", "/api/conversations").want(t, 200, "data.0.id", conv, "data.0.title", "how high?", "data.1", nil, "next", nil)
}

func TestAQuestionThatWaitsSaysWhere(t *testing.T) {
	s := newSite(t, 1)
	s.ask("ann", "first")
	s.ask("ann", "second")
	a := s.ask("ann", "third").want(t, 202, "queue_position", 1)
	s.get("ann", a.text("urls.status")).want(t, 200, "status", "processing", "progress.percent", 0, "progress.status", "Waiting", "queue_position", 1)
}

func TestTheModelIsToldTheConversation(t *testing.T) {
	s := newSite(t, 1)
	conv := s.ask("ann", "1").text("conversation_id")
	s.next().done("one")
	s.call("ann", "POST", "/api/chat", `{"query":"2","conversation_id":"`+conv+`","model":"m"}`).want(t, 202, "conversation_id", conv)
	want := `{"model":"m","messages":[{"role":"user","content":"1"},{"role":"assistant","content":"one"},{"role":"user","content":"2"}]}`
	if got := string(s.next().claimed.Input); got != want {
		t.Fatalf("the worker got %s, want %s", got, want)
	}
}

func TestAFailedTaskIsASuccessfulRead(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	h.report(30, "Generating response")
	h.say("half")
	h.fail("upstream_error")
	s.get("ann", a.text("urls.status")).want(t, 200, "status", "failed", "progress.percent", 30, "progress.status", "Failed", "result", nil,
		"error.code", "upstream_error", "error.message", "it failed", "content", "half")
	s.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200,
		"data.1.status", "failed", "data.1.content", "half", "data.1.error.code", "upstream_error")
	s.ask("ann", "again", a.text("conversation_id"))
}

func TestACancelKeepsThePartialAnswerAndMarksIt(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	h.say("half an answ")
	s.call("ann", "POST", a.text("urls.cancel"), "").want(t, 202, "status", "processing", "cancel_requested", true, "progress.status", "Cancelling")
	if told := <-s.orders; told != h.claimed.Job.ID {
		t.Fatalf("the worker was told to cancel %s", told)
	}
	h.finish(job.Outcome{Cancelled: true})
	for range 2 {
		s.call("ann", "POST", a.text("urls.cancel"), "{}").want(t, 200, "status", "cancelled", "error.code", "cancelled", "result", nil, "content", "half an answ")
	}
	s.get("ann", a.text("urls.status")).want(t, 200, "status", "cancelled", "progress.status", "Cancelled")
	s.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200, "data.1.status", "cancelled", "data.1.content", "half an answ")
}

func TestACancelOfAWaitingQuestionEndsItAtOnce(t *testing.T) {
	s := newSite(t, 1)
	s.ask("ann", "first")
	a := s.ask("ann", "second")
	s.call("ann", "POST", a.text("urls.cancel"), "").want(t, 200, "status", "cancelled", "content", "")
	s.ask("ann", "third", a.text("conversation_id"))
}

// A cancel that is on disk is answered as one, whatever the reads after it meet.
func TestACancelIsAnsweredWhateverIsReadAfterIt(t *testing.T) {
	var failing atomic.Bool
	s := newSiteOver(t, 0, faulty.Plan{
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
	task := s.ask("ann", "q").text("task_id")
	s.call("ann", "POST", "/api/chat/cancel/"+task, "").want(t, 200, "status", "cancelled", "content", "", "error.code", "cancelled")
}

func TestOfQuestionsAskedTogetherOneIsTaken(t *testing.T) {
	s := newSite(t, 1)
	conv := s.call("ann", "POST", "/api/conversations", "").want(t, 201).text("id")
	const askers = 8
	answers := make([]answer, askers)
	var all sync.WaitGroup
	for i := range askers {
		all.Go(func() {
			answers[i] = s.call("ann", "POST", "/api/chat", fmt.Sprintf(`{"query":"%d","conversation_id":"%s"}`, i, conv))
		})
	}
	all.Wait()
	task := s.next().id()
	taken := 0
	for _, a := range answers {
		if a.status == http.StatusAccepted {
			taken++
			a.want(t, 202, "task_id", task)
			continue
		}
		a.want(t, 409, "code", "conflict", "task_id", task)
	}
	if taken != 1 || len(s.work) > 0 {
		t.Fatalf("%d questions were taken, and %d more jobs made", taken, len(s.work))
	}
	s.get("ann", "/api/conversations/"+conv+"/messages").want(t, 200, "data.1.task_id", task, "data.2", nil)
}

func TestAPageReloadedMidAnswerGoesOnWhereItWas(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	messages := "/api/conversations/" + a.text("conversation_id") + "/messages"
	s.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.content", "", "data.1.cursor", 0)
	h := s.next()
	h.say("void ")
	h.append(job.KindAttempt, `{"attempt":2}`, nil)
	h.report(30, "Generating response")
	h.say("one ")
	h.say("twö ")
	page := s.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.content", "one twö ", "data.1.cursor", 5, "data.1.task_id", h.id())

	l := s.dial("ann")
	l.send(`{"type":"watch","task_id":"%s","after":%s}`, h.id(), page.text("data.1.cursor"))
	l.hear().want(t, 0, "type", "progress", "percent", 30, "seq", 5)
	h.say("three")
	l.hear().want(t, 0, "type", "delta", "text", "three", "seq", 6)
	h.done("one twö three")
	l.hear().want(t, 0, "type", "progress", "percent", 100)
	l.hear().want(t, 0, "type", "chat_response", "answer", "one twö three")
}

func TestARetriedTaskIsFollowedLikeAnyOther(t *testing.T) {
	for _, retry := range []struct {
		rule string
		do   func(*site, job.ID) error
	}{
		{"one", func(s *site, id job.ID) error {
			_, err := s.engine.Retry(background, job.Owner{User: "ann"}, id)
			return err
		}},
		{"many", func(s *site, _ job.ID) error {
			n, err := s.engine.ChangeMany(background, engine.RetryAll, job.Filter{Owner: job.Owner{User: "ann"}, Status: job.Failed})
			if err == nil && n != 1 {
				return fmt.Errorf("%d were retried", n)
			}
			return err
		}},
	} {
		t.Run(retry.rule, func(t *testing.T) {
			s := newSite(t, 1)
			a := s.ask("ann", "q")
			messages := "/api/conversations/" + a.text("conversation_id") + "/messages"
			h := s.next()
			h.say("half")
			h.fail("upstream_error")
			s.get("ann", messages).want(t, 200, "data.1.status", "failed", "data.1.content", "half", "data.1.error.code", "upstream_error")
			if err := retry.do(s, h.claimed.Job.ID); err != nil {
				t.Fatal(err)
			}
			s.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.error", nil, "data.1.cursor", 1)
			s.call("ann", "POST", "/api/chat", `{"query":"q","conversation_id":"`+a.text("conversation_id")+`"}`).want(t, 409, "task_id", h.id())

			h = s.next()
			h.append(job.KindAttempt, `{"attempt":1}`, nil)
			h.say("who")
			page := s.get("ann", messages).want(t, 200, "data.1.status", "processing", "data.1.content", "who", "data.1.cursor", 3)
			l := s.dial("ann")
			l.send(`{"type":"watch","task_id":"%s","after":%s}`, h.id(), page.text("data.1.cursor"))
			l.hear().want(t, 0, "type", "progress", "percent", 0, "seq", 3)
			h.say("le")
			l.hear().want(t, 0, "type", "delta", "text", "le", "seq", 4)
			h.done("whole")
			l.hearUntil("chat_response").want(t, 0, "answer", "whole")
			s.get("ann", messages).want(t, 200, "data.1.status", "completed", "data.1.content", "whole", "data.1.error", nil, "data.2", nil)
		})
	}
}

// Whoever was told of an end before the retry is told that end.
func TestAnEndIsToldAsItWasAlthoughTheTaskWasRetriedSince(t *testing.T) {
	s := newSite(t, 1)
	s.ask("ann", "q")
	h := s.next()
	h.say("half")
	h.fail("upstream_error")
	failed, err := s.engine.Get(background, job.Owner{User: "ann"}, h.claimed.Job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine.Retry(background, job.Owner{User: "ann"}, failed.ID); err != nil {
		t.Fatal(err)
	}
	m, err := s.face.answerMessage(background, &failed.Job)
	if err != nil || m.Status != conversation.Failed || m.Content != "half" || m.Error == nil || m.Error.Code != "upstream_error" {
		t.Fatalf("the answer is %+v, %v", m, err)
	}
}

func TestAKeyMakesAQuestionApplyOnce(t *testing.T) {
	s := newSite(t, 1)
	ask := func(user, body, key string) answer {
		return s.call(user, "POST", "/api/chat", body, "Idempotency-Key", key)
	}
	first := ask("ann", `{"query":"q"}`, "k").want(t, 202)
	same := []any{"task_id", first.text("task_id"), "conversation_id", first.text("conversation_id")}
	ask("ann", `{"query":"q"}`, "k").want(t, 202, same...)
	ask("ann", `{"query":"other"}`, "k").want(t, 422, "code", "idempotency_mismatch")
	ask("ann", `{"query":"q","model":"m"}`, "k").want(t, 422)
	if other := ask("bob", `{"query":"q"}`, "k").want(t, 202); other.text("task_id") == first.text("task_id") {
		t.Fatal("bob's key found ann's job")
	}
	s.next().done("a")
	ask("ann", `{"query":"q"}`, "k").want(t, 202, append(same, "status", "completed")...)
	s.get("ann", "/api/conversations").want(t, 200, "data.1", nil)

	// The same question to the conversation that is answering it is no second one.
	body := `{"query":"q","conversation_id":"` + first.text("conversation_id") + `"}`
	second := ask("ann", body, "k2").want(t, 202)
	ask("ann", body, "k2").want(t, 202, "task_id", second.text("task_id"))
	ask("ann", body, "k3").want(t, 409, "task_id", second.text("task_id"))
}

func TestADeletedConversationTakesItsAnswerWithIt(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	conv := "/api/conversations/" + a.text("conversation_id")
	h := s.next()
	h.say("half")
	s.call("ann", "DELETE", conv, "").want(t, 204)
	if told := <-s.orders; told != h.claimed.Job.ID {
		t.Fatalf("the worker was told to cancel %s", told)
	}
	s.get("ann", conv+"/messages").want(t, 404, "code", "not_found")
	h.finish(job.Outcome{Cancelled: true})
	s.get("ann", conv+"/messages").want(t, 404)
	s.get("ann", "/api/conversations").want(t, 200, "data.0", nil)
	s.call("ann", "DELETE", conv, "").want(t, 404)
	s.get("ann", a.text("urls.status")).want(t, 404)
}

// Neither of the answer that is given nor of the older one that is given again.
func TestADeletedConversationLeavesNoPromptInItsJobs(t *testing.T) {
	s := newSite(t, 2)
	ann := job.Owner{User: "ann"}
	first := s.ask("ann", "a secret")
	conv := first.text("conversation_id")
	h := s.next()
	h.fail("upstream_error")
	second := s.ask("ann", "another secret", conv)
	s.next().done("fine")
	if _, err := s.engine.Retry(background, ann, h.claimed.Job.ID); err != nil {
		t.Fatal(err)
	}
	h = s.next()
	h.say("half")
	s.call("ann", "POST", "/api/chat", `{"query":"q","conversation_id":"`+conv+`"}`).want(t, 409, "code", "conflict", "task_id", first.text("task_id"))

	s.call("ann", "DELETE", "/api/conversations/"+conv, "").want(t, 204)
	if told := <-s.orders; told != h.claimed.Job.ID {
		t.Fatalf("the worker was told to cancel %s", told)
	}
	for _, task := range []answer{first, second} {
		s.get("ann", task.text("urls.status")).want(t, 404)
	}
	h.finish(job.Outcome{Cancelled: true})
	s.get("ann", first.text("urls.status")).want(t, 404)
}

// Earlier versions left the jobs of a deleted conversation.
func TestAnAnswerWithoutItsConversationIsStillRead(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	h.say("the answer")
	h.done("the answer")
	id, err := conversation.ParseID(a.text("conversation_id"))
	if err == nil {
		err = s.talks.Delete(background, job.Owner{User: "ann"}, id, func([]job.ID) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	s.get("ann", a.text("urls.status")).want(t, 200, "status", "completed", "result.answer", "the answer")
}

func TestAnAnswerWhoseJobIsDeletedIsShownAsCancelled(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	if err := s.engine.Delete(background, job.Owner{User: "ann"}, h.claimed.Job.ID); err != nil {
		t.Fatal(err)
	}
	messages := "/api/conversations/" + a.text("conversation_id") + "/messages"
	s.get("ann", messages).want(t, 200, "data.1.status", "cancelled")
	s.call("ann", "DELETE", "/api/conversations/"+a.text("conversation_id"), "").want(t, 204)
}

func TestNothingIsAnyoneElses(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	task, conv := a.text("task_id"), a.text("conversation_id")
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/chat/status/" + task, ""},
		{"POST", "/api/chat/cancel/" + task, ""},
		{"GET", "/api/conversations/" + conv + "/messages", ""},
		{"DELETE", "/api/conversations/" + conv, ""},
		{"POST", "/api/chat", `{"query":"q","conversation_id":"` + conv + `"}`},
	} {
		s.call("bob", c.method, c.path, c.body).want(t, 404, "code", "not_found")
	}
	s.get("bob", "/api/conversations").want(t, 200, "data.0", nil)
	l := s.dial("bob")
	l.send(`{"type":"watch","task_id":"%s"}`, task)
	l.hear().want(t, 0, "type", "error", "code", "not_found", "task_id", task)
	l.send(`{"type":"cancel","task_id":"%s"}`, task)
	l.hear().want(t, 0, "type", "error", "code", "not_found", "task_id", task)
	l.send(`{"type":"chat_query","query":"q","conversation_id":"%s","client_id":"1"}`, conv)
	l.hear().want(t, 0, "type", "error", "code", "not_found", "client_id", "1")
	if len(s.orders) > 0 {
		t.Fatal("bob cancelled ann's job")
	}
	s.get("ann", "/api/chat/status/"+task).want(t, 200, "status", "processing")
}

func TestAJobOfAnotherKindIsNoTask(t *testing.T) {
	s := newSite(t, 1)
	snap, _, err := s.engine.Submit(background, engine.Request{Owner: job.Owner{User: "ann"}, Queue: "other", Input: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	s.get("ann", "/api/chat/status/"+snap.ID.String()).want(t, 404)
	s.call("ann", "POST", "/api/chat/cancel/"+snap.ID.String(), "").want(t, 404)
	l := s.dial("ann")
	l.send(`{"type":"watch","task_id":"%s"}`, snap.ID)
	l.hear().want(t, 0, "type", "error", "code", "not_found")
}

func TestBadInputIsRefusedAndNothingIsStored(t *testing.T) {
	s := newSite(t, 1)
	foreign := job.NewID().String()
	conv := "conv_" + strings.TrimPrefix(foreign, "job_")
	long := strings.Repeat("x", maxQuery)
	for _, c := range []struct {
		rule, method, path, body string
		status                   int
		code                     string
	}{
		{"no body", "POST", "/api/chat", ``, 400, "invalid_request"},
		{"no JSON", "POST", "/api/chat", `query=q`, 400, "invalid_request"},
		{"no object", "POST", "/api/chat", `"q"`, 400, "invalid_request"},
		{"no query", "POST", "/api/chat", `{}`, 400, "invalid_request"},
		{"an empty query", "POST", "/api/chat", `{"query":""}`, 400, "invalid_request"},
		{"a blank query", "POST", "/api/chat", `{"query":" \n\t\u00a0"}`, 400, "invalid_request"},
		{"a query that is a number", "POST", "/api/chat", `{"query":1}`, 400, "invalid_request"},
		{"a query that is too long", "POST", "/api/chat", `{"query":"` + long + `x"}`, 400, "invalid_request"},
		{"a query with the character zero", "POST", "/api/chat", `{"query":"a\u0000"}`, 400, "invalid_request"},
		{"a query that is no UTF-8", "POST", "/api/chat", "{\"query\":\"\xff\"}", 400, "invalid_request"},
		{"a body past all", "POST", "/api/chat", `{"query":"` + strings.Repeat(long, 7) + `"}`, 413, "too_large"},
		{"a model that is too long", "POST", "/api/chat", `{"query":"q","model":"` + long[:maxModel+1] + `"}`, 400, "invalid_request"},
		{"an unknown field", "POST", "/api/chat", `{"query":"q","temperature":1}`, 400, "invalid_request"},
		{"an unknown conversation", "POST", "/api/chat", `{"query":"q","conversation_id":"` + conv + `"}`, 404, "not_found"},
		{"a conversation that is none", "POST", "/api/chat", `{"query":"q","conversation_id":"../x"}`, 404, "not_found"},
		{"an unknown parameter", "POST", "/api/chat?wait=1", `{"query":"q"}`, 400, "invalid_request"},
		{"another method", "GET", "/api/chat", ``, 405, "method_not_allowed"},
		{"an unknown task", "GET", "/api/chat/status/" + foreign, ``, 404, "not_found"},
		{"a task that is none", "GET", "/api/chat/status/1", ``, 404, "not_found"},
		{"an unknown task to cancel", "POST", "/api/chat/cancel/" + foreign, ``, 404, "not_found"},
		{"a cancel with a body", "POST", "/api/chat/cancel/" + foreign, `{"x":1}`, 400, "invalid_request"},
		{"a cancel with a large body", "POST", "/api/chat/cancel/" + foreign, long, 413, "too_large"},
		{"a page of none", "GET", "/api/conversations?limit=0", ``, 400, "invalid_request"},
		{"a page of too many", "GET", "/api/conversations?limit=101", ``, 400, "invalid_request"},
		{"a page of half", "GET", "/api/conversations?limit=1.5", ``, 400, "invalid_request"},
		{"a page of nothing", "GET", "/api/conversations?limit=", ``, 400, "invalid_request"},
		{"a cursor that is none", "GET", "/api/conversations?after=x", ``, 400, "invalid_request"},
		{"a parameter given twice", "GET", "/api/conversations?limit=1&limit=2", ``, 400, "invalid_request"},
		{"an unknown parameter of a list", "GET", "/api/conversations?page=1", ``, 400, "invalid_request"},
		{"a broken parameter", "GET", "/api/conversations?limit=%zz", ``, 400, "invalid_request"},
		{"a title that is too long", "POST", "/api/conversations", `{"title":"` + long[:201] + `"}`, 400, "invalid_request"},
		{"an unknown field of a conversation", "POST", "/api/conversations", `{"name":"x"}`, 400, "invalid_request"},
		{"messages of no conversation", "GET", "/api/conversations/" + conv + "/messages", ``, 404, "not_found"},
		{"messages of nothing", "GET", "/api/conversations/x/messages", ``, 404, "not_found"},
		{"messages before nothing", "GET", "/api/conversations/" + conv + "/messages?before=x", ``, 400, "invalid_request"},
		{"messages before another's", "GET", "/api/conversations/" + conv + "/messages?before=msg_00000000000000000000000000_000001", ``, 400, "invalid_request"},
		{"no conversation to delete", "DELETE", "/api/conversations/" + conv, ``, 404, "not_found"},
		{"a heartbeat with a body", "POST", "/api/heartbeat", `{"x":1}`, 400, "invalid_request"},
		{"a socket that is none", "GET", "/ws", ``, 400, "invalid_request"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			a := s.call("ann", c.method, c.path, c.body).want(t, c.status, "code", c.code)
			if a.text("detail") == "" || a.header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("answered with %v", a.body)
			}
		})
	}
	for _, key := range []string{"", strings.Repeat("k", job.MaxKey+1), "a\tb"} {
		s.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Idempotency-Key", key).want(t, 400, "code", "invalid_request")
	}
	s.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Idempotency-Key", "a", "Idempotency-Key", "b").want(t, 400)
	s.get("ann", "/api/conversations").want(t, 200, "data.0", nil)
	if len(s.work) > 0 {
		t.Fatal("a job was made")
	}
	s.call("ann", "POST", "/api/chat", `{"query":"`+long+`"}`).want(t, 202)
}

func TestAnyContentTypeIsJSON(t *testing.T) {
	s := newSite(t, 1)
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"} {
		s.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Content-Type", kind).want(t, 202)
	}
}

func TestOnlyTheSameOriginIsServed(t *testing.T) {
	s := newSite(t, 1)
	s.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Origin", "https://example.com").want(t, 403, "code", "forbidden")
	s.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Origin", s.url).want(t, 202)
}

func TestListsArePaged(t *testing.T) {
	s := newSite(t, 1)
	for i := range 5 {
		s.call("ann", "POST", "/api/conversations", fmt.Sprintf(`{"title":"%d"}`, i)).want(t, 201, "title", i)
	}
	first := s.get("ann", "/api/conversations?limit=2").want(t, 200, "data.0.title", 4, "data.1.title", 3, "data.2", nil)
	second := s.get("ann", "/api/conversations?limit=2&after="+first.text("next")).want(t, 200, "data.0.title", 2, "data.1.title", 1)
	s.get("ann", "/api/conversations?limit=2&after="+second.text("next")).want(t, 200, "data.0.title", 0, "data.1", nil, "next", nil)

	conv := first.text("data.0.id")
	for i := range 2 {
		s.ask("ann", fmt.Sprint("q", i), conv)
		s.next().done(fmt.Sprint("a", i))
	}
	messages := "/api/conversations/" + conv + "/messages?limit=3"
	newest := s.get("ann", messages).want(t, 200, "data.0.content", "a0", "data.1.content", "q1", "data.2.content", "a1")
	s.get("ann", messages+"&before="+newest.text("next")).want(t, 200, "data.0.content", "q0", "data.1", nil, "next", nil)
}

// A row that was read as pending is shown as the answer that has come since.
func TestAnAnswerThatComesWhileMessagesAreReadIsShown(t *testing.T) {
	s := newSite(t, 1)
	ann := job.Owner{User: "ann"}
	s.ask("ann", "q")
	h := s.next()
	id, _ := conversation.AnswerIDOf(&h.claimed.Job)
	stale, err := s.talks.Message(background, ann, id)
	if err != nil || stale.Status != conversation.Processing {
		t.Fatal(stale, err)
	}
	h.done("all")
	view, err := s.face.viewWithOutput(background, ann, stale)
	if err != nil || view.Content != "all" || view.Status != conversation.Completed || view.Cursor != nil {
		t.Fatal(view, err)
	}
}

func TestReadingNeverWaitsForAWrite(t *testing.T) {
	var stuck atomic.Bool
	began, gate := make(chan struct{}, 1), make(chan struct{})
	s := newSiteOver(t, 1, faulty.Plan{Commit: func(int, *store.Batch) faulty.Fault {
		if !stuck.Load() {
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
	a := s.ask("ann", "q")
	h := s.next()
	h.say("half")
	stuck.Store(true)
	asked := make(chan answer, 1)
	go func() { asked <- s.call("ann", "POST", "/api/chat", `{"query":"q2"}`) }()
	<-began
	s.get("ann", "/api/conversations").want(t, 200, "data.0.id", a.text("conversation_id"), "data.1", nil)
	s.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200, "data.1.content", "half")
	s.get("ann", a.text("urls.status")).want(t, 200, "content", "half")
	s.call("ann", "POST", "/api/heartbeat", "").want(t, 200)
	stuck.Store(false)
	close(gate)
	(<-asked).want(t, 202)
}

// Every second commit is applied, or not, and nobody is told which: it is committed
// again, and no question, answer or delete is done twice or lost.
func TestAConversationOutlivesCommitsOfUnknownOutcome(t *testing.T) {
	var asked atomic.Int32
	s := newSiteOver(t, 1, faulty.Plan{Commit: func(_ int, b *store.Batch) faulty.Fault {
		if b.Len() == len(b.Dues) { // of the engine's own, at a time of its own: while it fails no question is taken
			return faulty.Fault{}
		}
		return faulty.Fault{Step: []faulty.Step{faulty.LostAfterCommit, faulty.None, faulty.LostBeforeCommit, faulty.None}[asked.Add(1)%4]}
	}})
	conv := s.call("ann", "POST", "/api/conversations", "").want(t, 201).text("id")
	for i := range 6 {
		s.ask("ann", fmt.Sprint("q", i), conv)
		h := s.next()
		h.say("a")
		h.say(fmt.Sprint(i))
		h.done(fmt.Sprint("a", i))
	}
	page := s.get("ann", "/api/conversations/"+conv+"/messages").want(t, 200, "data.12", nil)
	for i := range 6 {
		page.want(t, 200, fmt.Sprintf("data.%d.content", 2*i), fmt.Sprint("q", i), fmt.Sprintf("data.%d.content", 2*i+1), fmt.Sprint("a", i))
	}
	for range 4 {
		doomed := s.call("ann", "POST", "/api/conversations", "").want(t, 201).text("id")
		s.call("ann", "DELETE", "/api/conversations/"+doomed, "").want(t, 204)
	}
	s.get("ann", "/api/conversations").want(t, 200, "data.0.id", conv, "data.1", nil)
}

func TestAHeartbeatSaysHowLongItCounts(t *testing.T) {
	s := newSite(t, 1)
	ann := job.Owner{User: "ann"}
	if s.beats.of(ann) > 0 {
		t.Fatal("ann is here already")
	}
	s.call("ann", "POST", "/api/heartbeat", "").want(t, 200, "status", "ok", "expires_in_s", 60)
	if s.beats.of(ann) != 1 || s.beats.of(job.Owner{User: "bob"}) > 0 {
		t.Fatal("ann is not here, or bob is")
	}
}
