package chat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api/stream"
)

func TestClientNamesItsConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	for _, name := range []string{"conv123", "a b", "a/b", "a//b", "..%2f", "ä", "?q=1#f", "messages", ".."} {
		path := "/api/conversations/" + strings.ReplaceAll(url.PathEscape(name), ".", "%2E")
		h.get("ann", path).want(t, 404, "code", "not_found")
		a := h.ask("ann", "one", name).want(t, 202, "conversation_id", name)
		h.get("ann", a.text("urls.status")).want(t, 200, "conversation_id", name)
		h.next().done("1")
		h.get("ann", a.text("urls.status")).want(t, 200, "conversation_id", name, "result.conversation_id", name)
		h.ask("ann", "two", name)
		w := h.next()
		if got := string(w.claimed.Input); !strings.Contains(got, `"one"`) {
			t.Fatalf("%q: the second prompt is %s", name, got)
		}
		w.done("2")
		h.get("ann", path).want(t, 200, "id", name, "conversation_id", name, "title", "one", "next", nil,
			"messages.0.content", "one", "messages.1.content", "1", "messages.2.content", "two", "messages.3.content", "2", "messages.4", nil)
		page := h.get("ann", path+"/messages?limit=1").want(t, 200, "data.0.content", "2")
		h.get("ann", path+"?limit=2&before="+page.text("next")).want(t, 200, "messages.0.content", "1", "messages.1.content", "two")
		h.get("ann", "/api/conversations?limit=1").want(t, 200, "conversations.0.id", name, "conversations.0.title", "one")
		h.get("bob", path).want(t, 404)
		h.call("bob", "DELETE", path, "").want(t, 404)

		h.startAPI(stream.DefaultDeadlines) // a name survives a restart
		h.call("ann", "DELETE", path, "").want(t, 204)
		h.get("ann", path).want(t, 404)
		h.get("ann", path+"/messages").want(t, 404)
		again, _ := json.Marshal(map[string]string{"query": "q", "conversation_id": name})
		h.call("ann", "POST", "/api/chat", string(again)).want(t, 404, "code", "not_found")
		h.call("ann", "DELETE", path, "").want(t, 404)
		h.ask("bob", "mine", name).want(t, 202, "conversation_id", name)
		h.next().done("bob's")
	}
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0", nil)
}

// Eight tabs send the first question of a conversation at the same moment. One is accepted. Each
// of the others is refused with the task to wait for, and accepted later.
func TestFirstQuestionsAtOnceBeginOneConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	const tabs = 8
	var asked sync.WaitGroup
	answers := make([]answer, tabs)
	for i := range tabs {
		asked.Go(func() {
			answers[i] = h.call("ann", "POST", "/api/chat", fmt.Sprintf(`{"query":"%d","conversation_id":"conv123"}`, i))
		})
	}
	asked.Wait()
	w := h.next()
	var want []any
	for i, a := range answers {
		if a.status == http.StatusAccepted {
			want = append([]any{"messages.0.content", i, "messages.1.content", "a"}, want...)
		}
		a.want(t, a.status, "task_id", w.id())
	}
	if len(want) != 4 {
		t.Fatalf("%d questions were accepted", len(want)/4)
	}
	w.done("a")
	n := 2
	for i, a := range answers {
		if a.status == http.StatusAccepted {
			continue
		}
		a.want(t, 409, "code", "conflict")
		h.ask("ann", fmt.Sprint(i), "conv123")
		h.next().done("a")
		want = append(want, fmt.Sprintf("messages.%d.content", n), i)
		n += 2
	}
	h.get("ann", "/api/conversations/conv123").want(t, 200, append(want, fmt.Sprintf("messages.%d", n), nil)...)
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0.id", "conv123", "conversations.1", nil)
}

// A first question whose answer was lost is sent again, with its key and without.
func TestRepeatedFirstQuestionIsOneConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	body := `{"query":"q","conversation_id":"conv123"}`
	ask := func(key string) answer { return h.call("ann", "POST", "/api/chat", body, "Idempotency-Key", key) }
	first := ask("k").want(t, 202)
	ask("k").want(t, 202, "task_id", first.text("task_id"), "conversation_id", "conv123")
	ask("other").want(t, 409, "task_id", first.text("task_id"))
	h.next().done("a")
	ask("k").want(t, 202, "task_id", first.text("task_id"), "status", "completed", "outcome", "completed")
	h.get("ann", "/api/conversations/conv123").want(t, 200, "messages.2", nil)
}

// Questions and deletes of one name at the same time leave a conversation or none, and no message
// of a deleted one.
func TestQuestionsAndDeletesOfANameAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 0)
	for i := range 20 {
		name := fmt.Sprint("n", i)
		var all sync.WaitGroup
		var asked, deleted [3]answer
		for j := range asked {
			all.Go(func() {
				asked[j] = h.call("ann", "POST", "/api/chat", `{"query":"q","conversation_id":"`+name+`"}`)
			})
			all.Go(func() { deleted[j] = h.call("ann", "DELETE", "/api/conversations/"+name, "") })
		}
		all.Wait()
		gone := false
		for j := range asked {
			if status := asked[j].status; status != 202 && status != 404 && status != 409 {
				t.Fatalf("answered with %d: %v", status, asked[j].body)
			}
			gone = gone || deleted[j].status == 204
		}
		status := 200
		if gone {
			status = 404
		}
		h.get("ann", "/api/conversations/"+name).want(t, status)
		for _, a := range asked {
			if a.status == 202 {
				h.get("ann", a.text("urls.status")).want(t, status)
			}
		}
	}
}

func TestListIsInTheOrderOfLastMessages(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 2)
	h.ask("ann", "q", "a")
	a := h.next()
	h.ask("ann", "q", "b")
	h.get("ann", "/api/conversations").want(t, 200, "conversations.0.id", "b", "conversations.1.id", "a", "next", nil)
	before := h.get("ann", "/api/conversations/a")
	a.done("1")
	page := h.get("ann", "/api/conversations").want(t, 200, "conversations.0.id", "a", "conversations.1.id", "b")
	at := func(a answer, path string) time.Time {
		v, err := time.Parse(time.RFC3339, a.text(path))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	answered := at(page, "conversations.0.last_message_at")
	if !answered.After(at(before, "last_message_at")) || answered.Before(at(page, "conversations.1.last_message_at")) {
		t.Fatalf("a was answered before it was asked, or before b was asked: %v, %v", before.body, page.body)
	}
	first := h.get("ann", "/api/conversations?limit=1").want(t, 200, "conversations.0.id", "a", "conversations.1", nil)
	h.get("ann", "/api/conversations?limit=1&after="+first.text("next")).want(t, 200, "conversations.0.id", "b", "next", nil)
}

func TestSocketNamesItsConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	client.send(`{"type":"chat_query","query":"q","conversation_id":"conv123"}`)
	client.readUntil("accepted").want(t, 0, "conversation_id", "conv123")
	h.next().done("a")
	client.readUntil("chat_response").want(t, 0, "answer", "a", "conversation_id", "conv123")
	client.send(`{"type":"heartbeat","user":"ann"}`)
	client.send(`{"type":"chat_query","query":"more","conversation_id":"conv123"}`)
	client.readUntil("accepted").want(t, 0, "conversation_id", "conv123")
}
