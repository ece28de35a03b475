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

func TestASocketTellsAnAnswerFromItsQuestionToItsEnd(t *testing.T) {
	s := newSite(t, 1)
	l := s.dial("ann")
	l.send(`{"type":"chat_query","query":"q","client_id":"1"}`)
	a := l.hear()
	task := a.text("task_id")
	a.want(t, 0, "type", "accepted", "seq", 0, "client_id", "1", "queue_position", 0)
	h := s.next()
	if h.id() != task {
		t.Fatalf("the worker got %s, want %s", h.id(), task)
	}
	l.hear().want(t, 0, "type", "progress", "task_id", task, "seq", 0, "percent", 0, "status", "Working")
	h.report(30, "Generating response")
	l.hear().want(t, 0, "type", "progress", "task_id", task, "seq", 1, "percent", 30, "status", "Generating response")
	h.say("one ")
	l.hear().want(t, 0, "type", "delta", "task_id", task, "seq", 2, "text", "one ")
	h.append(job.KindAttempt, `{"attempt":2}`, nil)
	l.hear().want(t, 0, "type", "reset", "task_id", task, "seq", 3)
	h.say("two")
	l.hearUntil("delta").want(t, 0, "seq", 4, "text", "two")
	h.done("two")
	l.hear().want(t, 0, "type", "progress", "percent", 100, "status", "Complete")
	l.hear().want(t, 0, "type", "chat_response", "task_id", task, "seq", 4, "answer", "two", "conversation_id", a.text("conversation_id"))

	l.send(`{"type":"chat_query","query":"q2","conversation_id":"%s"}`, a.text("conversation_id"))
	l.hear().want(t, 0, "type", "accepted", "conversation_id", a.text("conversation_id"))
	s.next().fail("upstream_error")
	l.hearUntil("error").want(t, 0, "code", "upstream_error", "message", "it failed", "status", "failed")
}

// story is what a client has put together from what it heard.
type story struct {
	text, answer string
	seq          int64
	over         bool
}

func (st *story) hear(t testing.TB, a answer) {
	t.Helper()
	switch a.text("type") {
	case "delta":
		st.text += a.text("text")
	case "reset":
		st.text = ""
	case "chat_response":
		st.answer, st.over = a.text("answer"), true
	case "progress", "accepted":
	default:
		t.Fatalf("heard %v", a.body)
	}
	if a.at("seq") == nil {
		return // it is no part of the story
	}
	seq := int64(a.at("seq").(float64))
	if seq < st.seq {
		t.Fatalf("after %d comes %v", st.seq, a.body)
	}
	st.seq = seq
}

// A client that hears so many messages on each socket, loses it, and watches on
// from what it saw last, hears all of the answer and nothing twice; while the
// answer is being said, and after.
func TestAClientThatLosesItsSocketAnywhereMissesNothing(t *testing.T) {
	s := newSite(t, 8)
	var want strings.Builder
	for i := range 12 {
		fmt.Fprintf(&want, "piece %d, ", i)
	}
	for every := 1; every <= 8; every++ {
		t.Run(fmt.Sprintf("every %d messages", every), func(t *testing.T) {
			a := s.ask("ann", "q")
			h := s.next()
			said := make(chan struct{})
			go func() {
				defer close(said)
				h.say("void")
				h.append(job.KindAttempt, `{"attempt":2}`, nil)
				for i := range 12 {
					h.say(fmt.Sprintf("piece %d, ", i))
				}
				h.done(want.String())
			}()
			for _, live := range []bool{true, false} {
				var st story
				for !st.over {
					l := s.dial("ann")
					l.send(`{"type":"watch","task_id":"%s","after":%d}`, a.text("task_id"), st.seq)
					// One more each time: what a watch begins with is no news.
					for heard := 0; heard <= every && !st.over; heard++ {
						st.hear(t, l.hear())
					}
					l.drop()
				}
				if st.text != want.String() || st.answer != st.text {
					t.Fatalf("live %v: the client has %q and the answer %q", live, st.text, st.answer)
				}
				<-said
			}
		})
	}
}

func TestAQuestionSentAgainIsTheSameOne(t *testing.T) {
	s := newSite(t, 1)
	l := s.dial("ann")
	const query = `{"type":"chat_query","query":"q","client_id":"c-1"}`
	l.send(query)
	first := l.hear().want(t, 0, "type", "accepted")
	same := []any{"type", "accepted", "task_id", first.text("task_id"), "conversation_id", first.text("conversation_id")}
	h := s.next()
	l.hearUntil("progress")
	h.say("half ")
	l.hear().want(t, 0, "type", "delta", "text", "half ")
	l.send(query) // the watch goes on, and repeats nothing; the client stays where it is
	l.hear().want(t, 0, same...).want(t, 0, "seq", nil)
	h.say("done")
	l.hear().want(t, 0, "type", "delta", "text", "done")
	l.drop()

	again := s.dial("ann")
	again.send(query)
	again.hear().want(t, 0, same...).want(t, 0, "seq", 0)
	again.hear().want(t, 0, "type", "delta", "text", "half done", "seq", 2)
	s.call("ann", "POST", "/api/chat", `{"query":"q"}`, "Idempotency-Key", "c-1").want(t, 202, "task_id", first.text("task_id"))
	again.send(`{"type":"chat_query","query":"another","client_id":"c-1"}`)
	again.hearUntil("error").want(t, 0, "code", "idempotency_mismatch", "client_id", "c-1", "task_id", nil)
	h.done("half done")
	again.hearUntil("chat_response")
	if len(s.work) > 0 {
		t.Fatal("a second job was made")
	}
}

func TestABusyConversationNamesItsTaskOverASocket(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	l := s.dial("ann")
	l.send(`{"type":"chat_query","query":"q2","conversation_id":"%s","client_id":"2"}`, a.text("conversation_id"))
	l.hear().want(t, 0, "type", "error", "code", "conflict", "task_id", a.text("task_id"), "client_id", "2", "status", nil)
}

func TestACancelOverASocketIsToldItsEnd(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	h.say("half")
	l := s.dial("ann") // it does not watch the task
	l.send(`{"type":"cancel","task_id":"%s"}`, a.text("task_id"))
	l.hear().want(t, 0, "type", "progress", "status", "Cancelling", "seq", 1)
	<-s.orders
	h.finish(job.Outcome{Cancelled: true})
	l.hearUntil("error").want(t, 0, "code", "cancelled", "status", "cancelled", "task_id", a.text("task_id"))
	l.send(`{"type":"cancel","task_id":"%s"}`, a.text("task_id")) // and again
	l.hearUntil("error").want(t, 0, "code", "cancelled", "status", "cancelled")
}

func TestAWatchAskedForAgainBeginsWhereItIsTold(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	h.say("one ")
	l := s.dial("ann")
	l.send(`{"type":"watch","task_id":"%s"}`, a.text("task_id"))
	l.hear().want(t, 0, "type", "delta", "seq", 1)
	l.send(`{"type":"watch","task_id":"%s","after":1}`, a.text("task_id"))
	l.hearUntil("progress")
	l.hearUntil("progress") // of the second watch: the first is gone
	h.say("two")
	l.hear().want(t, 0, "type", "delta", "text", "two")
	h.done("one two")
	l.hearUntil("chat_response")
	l.send(`{"type":"heartbeat"}`)
	l.send(`{"type":"nothing"}`)
	l.hear().want(t, 0, "type", "error", "field", "/type") // so nothing came twice
	if s.beats.of(job.Owner{User: "ann"}) != 1 {
		t.Fatal("ann's heartbeat was not heard")
	}
}

func TestGarbageIsAnsweredAndTheSocketStays(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	l := s.dial("ann")
	for _, c := range []struct{ message, code, field string }{
		{"hello", "invalid_request", ""},
		{"", "invalid_request", ""},
		{`{"type":"launch"}`, "invalid_request", "/type"},
		{`{"type":"chat_query"}`, "invalid_request", "/query"},
		{`{"type":"chat_query","query":"  "}`, "invalid_request", "/query"},
		{`{"type":"chat_query","query":"q","conversation_id":"x"}`, "not_found", ""},
		{`{"type":"watch"}`, "not_found", ""},
		{`{"type":"watch","task_id":"job_x"}`, "not_found", ""},
		{`{"type":"watch","task_id":"` + job.NewID().String() + `"}`, "not_found", ""},
		{`{"type":"watch","task_id":"` + a.text("task_id") + `","after":1}`, "invalid_request", "/after"},
		{`{"type":"cancel","task_id":""}`, "not_found", ""},
		{strings.Repeat("[", 100_000), "invalid_request", ""},
	} {
		l.send("%s", c.message)
		got := l.hear().want(t, 0, "type", "error", "code", c.code, "seq", nil)
		if field, _ := got.at("field").(string); field != c.field || got.text("message") == "" {
			t.Fatalf("%.80q is answered with %v", c.message, got.body)
		}
	}
	if err := l.conn.Write(background, websocket.MessageBinary, []byte(`{"type":"heartbeat"}`)); err != nil {
		t.Fatal(err)
	}
	l.hear().want(t, 0, "type", "error", "code", "invalid_request")
	l.send(`{"type":"chat_query","query":"q"}`)
	l.hear().want(t, 0, "type", "accepted")
}

// A flood of garbage is answered message by message, and slows only its sender.
func TestAFloodIsAnsweredInOrder(t *testing.T) {
	s := newSite(t, 1)
	l := s.dial("ann")
	const flood = 5000
	sent := make(chan error, 1)
	go func() {
		for range flood {
			if err := l.conn.Write(background, websocket.MessageText, []byte("x")); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range flood {
		l.hear().want(t, 0, "type", "error")
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	s.get("ann", "/api/conversations").want(t, 200, "data.0", nil)
}

func TestAMessagePastTheBoundClosesTheSocket(t *testing.T) {
	s := newSite(t, 1)
	l := s.dial("ann")
	l.send(`{"type":"chat_query","query":"%s"}`, strings.Repeat("x", maxMessage))
	if _, err := l.listen(); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Fatalf("the socket ended with %v", err)
	}
	s.get("ann", "/api/conversations").want(t, 200, "data.0", nil)
}

func TestASocketFollowsOnlySoManyTasks(t *testing.T) {
	s := newSite(t, 1)
	l := s.dial("ann")
	for i := range maxFollowed {
		l.send(`{"type":"chat_query","query":"%d"}`, i)
		l.hearUntil("accepted")
	}
	l.send(`{"type":"chat_query","query":"one more","client_id":"m"}`)
	l.hearUntil("error").want(t, 0, "code", "too_large", "client_id", "m")
	s.get("ann", fmt.Sprintf("/api/conversations?limit=%d", maxFollowed+1)).want(t, 200, fmt.Sprintf("data.%d", maxFollowed), nil)
	more := s.ask("ann", "more")
	l.send(`{"type":"cancel","task_id":"%s"}`, more.text("task_id"))
	l.hearUntil("error").want(t, 0, "code", "too_large", "task_id", more.text("task_id"))
	s.get("ann", "/api/chat/status/"+more.text("task_id")).want(t, 200, "status", "processing", "cancel_requested", nil)
	s.next().done("a") // makes room for one
	l.hearUntil("chat_response")
	l.send(`{"type":"watch","task_id":"%s"}`, more.text("task_id"))
	for a := l.hear(); a.text("task_id") != more.text("task_id"); a = l.hear() {
		if a.text("type") == "error" {
			t.Fatal(a.body)
		}
	}
}

// Leaving at any point of a question or its answer changes nothing of the task.
func TestLeavingIsNotCancelling(t *testing.T) {
	s := newSite(t, 1)
	for _, stay := range []string{"sent", "accepted", "progress", "delta"} {
		t.Run(stay, func(t *testing.T) {
			l := s.dial("ann")
			l.send(`{"type":"chat_query","query":"q"}`)
			if stay != "sent" {
				l.hearUntil("accepted")
			}
			if stay == "sent" || stay == "accepted" {
				l.drop()
			}
			h := s.next()
			if stay == "progress" {
				l.hearUntil("progress")
				l.drop()
			}
			h.say("all ")
			if stay == "delta" {
				l.hearUntil("delta")
				l.drop()
			}
			h.say("of it")
			h.done("all of it")
			s.get("ann", "/api/chat/status/"+h.id()).want(t, 200, "status", "completed", "result.answer", "all of it")
		})
	}
	if len(s.orders) > 0 {
		t.Fatal("a worker was told to stop")
	}
}

func TestAStoppingServerTellsItsSocketsToComeBack(t *testing.T) {
	s := newSite(t, 1)
	l := s.dial("ann")
	l.send(`{"type":"chat_query","query":"q"}`)
	h := s.next()
	h.say("half ")
	st := story{}
	for a := l.hear(); ; a = l.hear() {
		if st.hear(t, a); st.text != "" {
			break
		}
	}
	close(s.stopping)
	for {
		if _, err := l.listen(); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Fatalf("the socket ended with %v", err)
			}
			break
		}
	}
	s.face.Wait()
	s.get("ann", "/ws").want(t, 400)
	_, res, err := websocket.Dial(background, s.url+"/ws", nil)
	if err == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Fatalf("a new socket: %v", err)
	}

	s.open(stream.DefaultDeadlines)
	h.say("done")
	h.done("half done")
	l = s.dial("ann")
	l.send(`{"type":"watch","task_id":"%s","after":%d}`, h.id(), st.seq)
	for !st.over {
		st.hear(t, l.hear())
	}
	if st.text != "half done" || st.answer != st.text {
		t.Fatalf("the client has %q and the answer %q", st.text, st.answer)
	}
}

// A client that takes nothing is dropped; what it took it can go on from.
func TestASlowReaderIsDroppedWithItsCursor(t *testing.T) {
	s := newSite(t, 1)
	s.open(stream.Deadlines{Write: 100 * time.Millisecond, Ping: time.Hour, Pong: time.Hour})
	l := s.dial("ann")
	l.send(`{"type":"chat_query","query":"q"}`)
	h := s.next()
	piece := strings.Repeat("x", 60<<10)
	const pieces = 200 // more than any socket's buffers hold
	for range pieces {
		h.say(piece)
	}
	s.face.Wait() // the socket is gone although its client has taken nothing
	h.done("done")

	var st story
	for {
		a, err := l.listen()
		if err != nil {
			break
		}
		st.hear(t, a)
	}
	if st.over || st.seq >= pieces {
		t.Fatal("the client was not slow")
	}
	s.open(stream.DefaultDeadlines)
	l = s.dial("ann")
	l.send(`{"type":"watch","task_id":"%s","after":%d}`, h.id(), st.seq)
	for !st.over {
		st.hear(t, l.hear())
	}
	if len(st.text) != pieces*len(piece) {
		t.Fatalf("the client has %d bytes, want %d", len(st.text), pieces*len(piece))
	}
}

// A client that does not answer a ping is gone, and its socket with it.
func TestAClientThatIsGoneWithoutAWordIsDropped(t *testing.T) {
	s := newSite(t, 1)
	s.open(stream.Deadlines{Write: time.Hour, Ping: time.Millisecond, Pong: 10 * time.Millisecond})
	l := s.dial("ann") // it does not read, and so answers no ping
	s.face.Wait()
	if _, err := l.listen(); err == nil {
		t.Fatal("the socket is still there")
	}
}

func TestASocketOfAnotherOriginIsRefused(t *testing.T) {
	s := newSite(t, 1)
	_, res, err := websocket.Dial(background, s.url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://example.com"}}})
	if err == nil || res.StatusCode != http.StatusForbidden {
		t.Fatalf("a socket of another origin: %v", err)
	}
	conn, _, err := websocket.Dial(background, s.url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {s.url}}})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseNow()
}

// A job of the user's own that is tried again tells its story on.
func TestATaskTriedAgainIsFollowedToItsNewEnd(t *testing.T) {
	s := newSite(t, 1)
	a := s.ask("ann", "q")
	h := s.next()
	h.say("half")
	h.fail("upstream_error")
	var st story
	l := s.dial("ann")
	l.send(`{"type":"watch","task_id":"%s"}`, a.text("task_id"))
	for e := l.hear(); e.text("type") != "error"; e = l.hear() {
		st.hear(t, e)
	}
	if _, err := s.engine.Retry(background, job.Owner{User: "ann"}, h.claimed.Job.ID); err != nil {
		t.Fatal(err)
	}
	h = s.next()
	l.send(`{"type":"watch","task_id":"%s","after":%d}`, h.id(), st.seq)
	h.append(job.KindAttempt, `{"attempt":1}`, nil)
	h.say("all")
	h.done("all")
	for !st.over {
		st.hear(t, l.hear())
	}
	if st.text != "all" || st.answer != "all" {
		t.Fatalf("the client has %q and the answer %q", st.text, st.answer)
	}
	s.get("ann", "/api/conversations/"+a.text("conversation_id")+"/messages").want(t, 200, "data.1.status", "completed", "data.1.content", "all")
}

// The engine is all that the face needs.
var _ Engine = (*engine.Engine)(nil)
