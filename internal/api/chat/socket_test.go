package chat

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestSocketSendsWholeAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	client.send(`{"type":"chat_query","query":"q","client_id":"1"}`)
	a := client.read()
	task := a.text("task_id")
	a.want(t, 0, "type", "accepted", "seq", 0, "client_id", "1", "queue_position", 0)
	w := h.next()
	if w.id() != task {
		t.Fatalf("the worker got %s, want %s", w.id(), task)
	}
	client.read().want(t, 0, "type", "progress", "task_id", task, "seq", 0, "percent", 0, "status", "Working")
	w.report(30, "Generating response")
	client.read().want(t, 0, "type", "progress", "task_id", task, "seq", 1, "percent", 30, "status", "Generating response")
	w.text("one ")
	client.read().want(t, 0, "type", "delta", "task_id", task, "seq", 2, "text", "one ")
	w.append(job.KindAttempt, `{"attempt":2}`, nil)
	client.read().want(t, 0, "type", "reset", "task_id", task, "seq", 3)
	w.text("two")
	client.readUntil("delta").want(t, 0, "seq", 4, "text", "two")
	w.done("two")
	client.read().want(t, 0, "type", "progress", "percent", 100, "status", "Complete")
	client.read().want(t, 0, "type", "chat_response", "task_id", task, "seq", 4, "answer", "two", "conversation_id", a.text("conversation_id"))

	client.send(`{"type":"chat_query","query":"q2","conversation_id":"%s"}`, a.text("conversation_id"))
	client.read().want(t, 0, "type", "accepted", "conversation_id", a.text("conversation_id"))
	h.next().fail("upstream_error")
	client.readUntil("error").want(t, 0, "code", "upstream_error", "message", "it failed", "status", "failed")
}

// transcript is what a client has received: the text and the end.
type transcript struct {
	text, answer string
	seq          int64
	over         bool
}

func (tr *transcript) add(t testing.TB, a answer) {
	t.Helper()
	switch a.text("type") {
	case "delta":
		tr.text += a.text("text")
	case "reset":
		tr.text = ""
	case "chat_response":
		tr.answer, tr.over = a.text("answer"), true
	case "progress", "accepted":
	default:
		t.Fatalf("received %v", a.body)
	}
	if a.at("seq") == nil {
		return // it belongs to no task
	}
	seq := int64(a.at("seq").(float64))
	if seq < tr.seq {
		t.Fatalf("after %d comes %v", tr.seq, a.body)
	}
	tr.seq = seq
}

// A client reads some messages on each socket, loses the socket, and watches from its
// last cursor. It receives all of the answer, and nothing twice, while the answer is
// written and after.
func TestReconnectingClientMissesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 8)
	var want strings.Builder
	for i := range 12 {
		fmt.Fprintf(&want, "piece %d, ", i)
	}
	for every := 1; every <= 8; every++ {
		t.Run(fmt.Sprintf("every %d messages", every), func(t *testing.T) {
			a := h.ask("ann", "q")
			w := h.next()
			written := make(chan struct{})
			go func() {
				defer close(written)
				w.text("void")
				w.append(job.KindAttempt, `{"attempt":2}`, nil)
				for i := range 12 {
					w.text(fmt.Sprintf("piece %d, ", i))
				}
				w.done(want.String())
			}()
			for _, during := range []bool{true, false} {
				var tr transcript
				for !tr.over {
					client := h.dial("ann")
					client.send(`{"type":"watch","task_id":"%s","after":%d}`, a.text("task_id"), tr.seq)
					// One message more each time, because the first
					// progress of a watch is a repetition.
					for n := 0; n <= every && !tr.over; n++ {
						tr.add(t, client.read())
					}
					client.drop()
				}
				if tr.text != want.String() || tr.answer != tr.text {
					t.Fatalf("while running %v: the client has %q and the answer %q", during, tr.text, tr.answer)
				}
				<-written
			}
		})
	}
}

func TestRepeatedQuestionIsSameTask(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	const query = `{"type":"chat_query","query":"q","client_id":"c-1"}`
	client.send(query)
	first := client.read().want(t, 0, "type", "accepted")
	same := []any{"type", "accepted", "task_id", first.text("task_id"), "conversation_id", first.text("conversation_id")}
	w := h.next()
	client.readUntil("progress")
	w.text("half ")
	client.read().want(t, 0, "type", "delta", "text", "half ")
	client.send(query) // the watch continues and repeats nothing
	client.read().want(t, 0, same...).want(t, 0, "seq", nil)
	w.text("done")
	client.read().want(t, 0, "type", "delta", "text", "done")
	client.drop()

	again := h.dial("ann")
	again.send(query)
	again.read().want(t, 0, same...).want(t, 0, "seq", 0)
	again.read().want(t, 0, "type", "delta", "text", "half done", "seq", 2)
	h.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Idempotency-Key", "c-1").want(t, 202, "task_id", first.text("task_id"))
	again.send(`{"type":"chat_query","query":"another","client_id":"c-1"}`)
	again.readUntil("error").want(t, 0, "code", "idempotency_mismatch", "client_id", "c-1", "task_id", nil)
	w.done("half done")
	again.readUntil("chat_response")
	if len(h.work) > 0 {
		t.Fatal("a second job was made")
	}
}

func TestBusyErrorNamesTask(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	client := h.dial("ann")
	client.send(`{"type":"chat_query","query":"q2","conversation_id":"%s","client_id":"2"}`, a.text("conversation_id"))
	client.read().want(t, 0, "type", "error", "code", "conflict", "task_id", a.text("task_id"), "client_id", "2", "status", nil)
}

func TestCancelOverSocketGetsEnd(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	w.text("half")
	client := h.dial("ann") // a client that does not watch the task
	client.send(`{"type":"cancel","task_id":"%s"}`, a.text("task_id"))
	client.read().want(t, 0, "type", "progress", "status", "Cancelling", "seq", 1)
	<-h.cancels
	w.finish(job.Outcome{Cancelled: true})
	client.readUntil("error").want(t, 0, "code", "cancelled", "status", "failed", "outcome", "cancelled", "task_id", a.text("task_id"))
	client.send(`{"type":"cancel","task_id":"%s"}`, a.text("task_id")) // a second time
	client.readUntil("error").want(t, 0, "code", "cancelled", "status", "failed", "outcome", "cancelled")
}

func TestSecondWatchStartsAtItsCursor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	w.text("one ")
	client := h.dial("ann")
	client.send(`{"type":"watch","task_id":"%s"}`, a.text("task_id"))
	client.read().want(t, 0, "type", "delta", "seq", 1)
	client.send(`{"type":"watch","task_id":"%s","after":1}`, a.text("task_id"))
	client.readUntil("progress")
	client.readUntil("progress") // of the second watch, which has replaced the first
	w.text("two")
	client.read().want(t, 0, "type", "delta", "text", "two")
	w.done("one two")
	client.readUntil("chat_response")
	client.send(`{"type":"heartbeat"}`)
	client.send(`{"type":"nothing"}`)
	client.read().want(t, 0, "type", "error", "field", "/type") // so no message came twice
	if h.beats.count(job.Owner{User: "ann"}) != 1 {
		t.Fatal("ann's heartbeat was not counted")
	}
}

func TestGarbageKeepsSocketOpen(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	client := h.dial("ann")
	for _, c := range []struct{ message, code, field string }{
		{"hello", "invalid_request", ""},
		{"", "invalid_request", ""},
		{`{"type":"launch"}`, "invalid_request", "/type"},
		{`{"type":"chat_query"}`, "invalid_request", "/query"},
		{`{"type":"chat_query","query":"  "}`, "invalid_request", "/query"},
		{`{"type":"chat_query","query":"q","conversation_id":"conv_00000000000000000000000000"}`, "not_found", ""},
		{`{"type":"chat_query","query":"q","conversation_id":"\t"}`, "invalid_request", "/conversation_id"},
		{`{"type":"watch"}`, "not_found", ""},
		{`{"type":"watch","task_id":"job_x"}`, "not_found", ""},
		{`{"type":"watch","task_id":"` + job.NewID().String() + `"}`, "not_found", ""},
		{`{"type":"watch","task_id":"` + a.text("task_id") + `","after":1}`, "invalid_request", "/after"},
		{`{"type":"cancel","task_id":""}`, "not_found", ""},
		{strings.Repeat("[", 100_000), "invalid_request", ""},
	} {
		client.send("%s", c.message)
		got := client.read().want(t, 0, "type", "error", "code", c.code, "seq", nil)
		if field, _ := got.at("field").(string); field != c.field || got.text("message") == "" || got.text("error") != got.text("message") {
			t.Fatalf("%.80q is answered with %v", c.message, got.body)
		}
	}
	if err := client.conn.Write(background, websocket.MessageBinary, []byte(`{"type":"heartbeat"}`)); err != nil {
		t.Fatal(err)
	}
	client.read().want(t, 0, "type", "error", "code", "invalid_request")
	client.send(`{"type":"chat_query","query":"q"}`)
	client.read().want(t, 0, "type", "accepted")
}

// Each message of a flood of garbage is answered, and only the sender has to wait.
func TestFloodIsAnsweredInOrder(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	flood := 5000
	if testing.Short() {
		flood = 1500
	}
	sent := make(chan error, 1)
	go func() {
		for range flood {
			if err := client.conn.Write(background, websocket.MessageText, []byte("x")); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range flood {
		client.read().want(t, 0, "type", "error")
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	h.get("ann", "/api/conversations").want(t, 200, "data.0", nil)
}

func TestTooLargeMessageClosesSocket(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	client.send(`{"type":"chat_query","query":"%s"}`, strings.Repeat("x", maxMessage))
	if _, err := client.tryRead(); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Fatalf("the socket ended with %v", err)
	}
	h.get("ann", "/api/conversations").want(t, 200, "data.0", nil)
}

func TestSocketRefusesTooManyTasks(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	for i := range maxFollowed {
		client.send(`{"type":"chat_query","query":"%d"}`, i)
		client.readUntil("accepted")
	}
	client.send(`{"type":"chat_query","query":"one more","client_id":"m"}`)
	client.readUntil("error").want(t, 0, "code", "too_large", "client_id", "m")
	h.get("ann", fmt.Sprintf("/api/conversations?limit=%d", maxFollowed+1)).want(t, 200, fmt.Sprintf("data.%d", maxFollowed), nil)
	more := h.ask("ann", "more")
	client.send(`{"type":"cancel","task_id":"%s"}`, more.text("task_id"))
	client.readUntil("error").want(t, 0, "code", "too_large", "task_id", more.text("task_id"))
	h.get("ann", "/api/chat/status/"+more.text("task_id")).want(t, 200, "status", "processing", "cancel_requested", nil)
	h.next().done("a") // so that the session has capacity for one more
	client.readUntil("chat_response")
	client.send(`{"type":"watch","task_id":"%s"}`, more.text("task_id"))
	for a := client.read(); a.text("task_id") != more.text("task_id"); a = client.read() {
		if a.text("type") == "error" {
			t.Fatal(a.body)
		}
	}
}

// A client may leave at any point of a question or its answer without any effect on the
// task.
func TestLeavingClientDoesNotCancelTask(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	for _, stay := range []string{"sent", "accepted", "progress", "delta"} {
		t.Run(stay, func(t *testing.T) {
			client := h.dial("ann")
			client.send(`{"type":"chat_query","query":"q"}`)
			if stay != "sent" {
				client.readUntil("accepted")
			}
			if stay == "sent" || stay == "accepted" {
				client.drop()
			}
			w := h.next()
			if stay == "progress" {
				client.readUntil("progress")
				client.drop()
			}
			w.text("all ")
			if stay == "delta" {
				client.readUntil("delta")
				client.drop()
			}
			w.text("of it")
			w.done("all of it")
			h.get("ann", "/api/chat/status/"+w.id()).want(t, 200, "status", "completed", "result.answer", "all of it")
		})
	}
	if len(h.cancels) > 0 {
		t.Fatal("a worker got an order to stop")
	}
}

func TestStopTellsSocketsToReconnect(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	client := h.dial("ann")
	client.send(`{"type":"chat_query","query":"q"}`)
	w := h.next()
	w.text("half ")
	tr := transcript{}
	for a := client.read(); ; a = client.read() {
		if tr.add(t, a); tr.text != "" {
			break
		}
	}
	close(h.stopping)
	for {
		if _, err := client.tryRead(); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Fatalf("the socket ended with %v", err)
			}
			break
		}
	}
	h.api.Wait()
	h.get("ann", "/ws").want(t, 426)
	_, res, err := websocket.Dial(background, h.url+"/ws", nil)
	if err == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Fatalf("a new socket: %v", err)
	}

	h.startAPI(stream.DefaultDeadlines)
	w.text("done")
	w.done("half done")
	client = h.dial("ann")
	client.send(`{"type":"watch","task_id":"%s","after":%d}`, w.id(), tr.seq)
	for !tr.over {
		tr.add(t, client.read())
	}
	if tr.text != "half done" || tr.answer != tr.text {
		t.Fatalf("the client has %q and the answer %q", tr.text, tr.answer)
	}
}

// A client that reads nothing is dropped. It can resume after the last message that it
// has.
func TestSlowClientIsDroppedAndResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("fills the buffers of a socket")
	}
	h := newHarness(t, 1)
	h.startAPI(stream.Deadlines{Write: 100 * time.Millisecond, Ping: time.Hour, Pong: time.Hour})
	client := h.dial("ann")
	client.send(`{"type":"chat_query","query":"q"}`)
	w := h.next()
	piece := strings.Repeat("x", 60<<10)
	const pieces = 200 // more than any socket's buffers hold
	for range pieces {
		w.text(piece)
	}
	h.api.Wait() // the socket is gone although its client has read nothing
	w.done("done")

	var tr transcript
	for {
		a, err := client.tryRead()
		if err != nil {
			break
		}
		tr.add(t, a)
	}
	if tr.over || tr.seq >= pieces {
		t.Fatal("the client was not slow")
	}
	h.startAPI(stream.DefaultDeadlines)
	client = h.dial("ann")
	client.send(`{"type":"watch","task_id":"%s","after":%d}`, w.id(), tr.seq)
	for !tr.over {
		tr.add(t, client.read())
	}
	if len(tr.text) != pieces*len(piece) {
		t.Fatalf("the client has %d bytes, want %d", len(tr.text), pieces*len(piece))
	}
}

// A client that does not answer a ping is disconnected.
func TestClientWithoutPongIsDropped(t *testing.T) {
	h := newHarness(t, 1)
	h.startAPI(stream.Deadlines{Write: time.Hour, Ping: time.Millisecond, Pong: 10 * time.Millisecond})
	client := h.dial("ann") // a client that does not read, and so answers no ping
	h.api.Wait()
	if _, err := client.tryRead(); err == nil {
		t.Fatal("the socket is still there")
	}
}

func TestSocketOfOtherOriginIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	_, res, err := websocket.Dial(background, h.url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://example.com"}}})
	if err == nil || res.StatusCode != http.StatusForbidden {
		t.Fatalf("a socket of another origin: %v", err)
	}
	conn, _, err := websocket.Dial(background, h.url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {h.url}}})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseNow()
}

// A job that is retried is followed to its new end.
func TestRetriedAttemptIsFollowedToEnd(t *testing.T) {
	t.Parallel()
	h := newHarness(t, 1)
	a := h.ask("ann", "q")
	w := h.next()
	w.text("half")
	w.fail("upstream_error")
	var tr transcript
	client := h.dial("ann")
	client.send(`{"type":"watch","task_id":"%s"}`, a.text("task_id"))
	for e := client.read(); e.text("type") != "error"; e = client.read() {
		tr.add(t, e)
	}
	if _, err := h.engine.Retry(background, job.Owner{User: "ann"}, w.claimed.Job.ID); err != nil {
		t.Fatal(err)
	}
	w = h.next()
	client.send(`{"type":"watch","task_id":"%s","after":%d}`, w.id(), tr.seq)
	w.append(job.KindAttempt, `{"attempt":1}`, nil)
	w.text("all")
	w.done("all")
	for !tr.over {
		tr.add(t, client.read())
	}
	if tr.text != "all" || tr.answer != "all" {
		t.Fatalf("the client has %q and the answer %q", tr.text, tr.answer)
	}
	h.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200, "data.1.status", "completed", "data.1.content", "all")
}

// The engine has all methods that the API needs.
var _ Engine = (*engine.Engine)(nil)
