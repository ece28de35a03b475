package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// limits of the queue "work" over all servers.
const (
	maxRunningWork   = 8
	maxRunningPerKey = 2
)

// overlapGrace is how long the end of a call may take to be noticed: the system closes the
// connections of a killed process, and this program reads them, some time later.
const overlapGrace = 500 * time.Millisecond

// holders is the model that the jobs of the queue "work" call. Each call is work under way: while
// it is open, the server that made it holds the job. So the work itself records who holds which
// job, whatever the servers and the database believe.
type holders struct {
	// set once
	listener net.Listener
	server   *http.Server
	rec      *record
	checks   sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	calls  map[string][]*holding // by the echo of the job, in the order of their beginning
	open   map[*holding]bool
	count  int
	frozen [servers]bool // processes that are stopped, and cannot end their work
	widest int           // the most calls that were open at once
}

// workQueue is the queue whose jobs call the holders.
const workQueue = "work"

// holding is a call.
type holding struct {
	work
	server int
	number int // of the call; part of its text
	done   bool
}

// work is what the input of a job asks for.
type work struct {
	Echo   string
	Key    string
	Tokens int
	Pause  int // milliseconds between two tokens
}

// workInput returns the input of a job.
func workInput(of work) json.RawMessage {
	content, err := json.Marshal(of)
	if err == nil {
		content, err = json.Marshal(map[string]any{"messages": []map[string]string{{"role": "user", "content": string(content)}}})
	}
	if err != nil {
		panic(err) // JSON can encode all of it
	}
	return content
}

// work returns what workInput was made of.
func (k *jobRecord) work() (of work) {
	var input struct{ Messages []struct{ Content string } }
	_ = json.Unmarshal(k.sub.Input.(json.RawMessage), &input)
	_ = json.Unmarshal([]byte(input.Messages[0].Content), &of)
	return of
}

func newHolders(rec *record) (*holders, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &holders{listener: l, rec: rec, calls: map[string][]*holding{}, open: map[*holding]bool{}}
	h.server = &http.Server{Handler: http.HandlerFunc(h.serve)}
	go func() { _ = h.server.Serve(l) }()
	return h, nil
}

// url returns the URL of the model for a server. Its path says which one calls.
func (h *holders) url(server int) string {
	return fmt.Sprintf("http://%s/%d/v1", h.listener.Addr(), server)
}

func (h *holders) close() {
	_ = h.server.Close()
	h.checks.Wait()
}

// serve answers a call with numbered tokens.
func (h *holders) serve(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Messages []struct{ Content string }
	}
	var of work
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Messages) != 1 || json.Unmarshal([]byte(request.Messages[0].Content), &of) != nil {
		http.Error(w, "not a call of this test", http.StatusBadRequest)
		return
	}
	c := h.begin(of, int(r.URL.Path[1]-'0'))
	defer h.end(c)
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(delta, finish string) {
		fmt.Fprintf(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":%s}]}\n\n", delta, finish)
		_ = http.NewResponseController(w).Flush()
	}
	for i := range of.Tokens {
		select {
		case <-time.After(time.Duration(of.Pause) * time.Millisecond):
		case <-r.Context().Done():
			return
		}
		send(fmt.Sprintf(`"content":%q`, token(c.number, i)), "null")
	}
	send("", `"stop"`)
	_, _ = fmt.Fprint(w, "data: [DONE]\n\n")
}

func token(call, i int) string { return fmt.Sprintf("[%d:%d]", call, i) }

// text returns the first tokens of a call.
func text(call, tokens int) string {
	var b strings.Builder
	for i := range tokens {
		b.WriteString(token(call, i))
	}
	return b.String()
}

// begin records a call, and checks a while later that no others were open which must not be.
func (h *holders) begin(of work, server int) *holding {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	c := &holding{work: of, server: server, number: h.count}
	var same, sameKey, all []*holding
	for o := range h.open {
		if h.frozen[o.server] {
			continue
		}
		all = append(all, o)
		if o.Echo == of.Echo {
			same = append(same, o)
		}
		if o.Key == of.Key {
			sameKey = append(sameKey, o)
		}
	}
	h.calls[of.Echo] = append(h.calls[of.Echo], c)
	h.open[c] = true
	h.widest = max(h.widest, len(h.open))
	if len(same) > 0 || len(sameKey) >= maxRunningPerKey || len(all) >= maxRunningWork {
		h.checks.Go(func() {
			time.Sleep(overlapGrace)
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, o := range stillOpen(same) {
				if !h.frozen[o.server] {
					h.rec.addViolation("two servers hold %s: server %d in call %d, and server %d in call %d", of.Echo, o.server, o.number, server, c.number)
				}
			}
			if n := len(stillOpen(sameKey)); n >= maxRunningPerKey && !c.done {
				h.rec.addViolation("%d jobs of %s run, more than %d", n+1, of.Key, maxRunningPerKey)
			}
			if n := len(stillOpen(all)); n >= maxRunningWork && !c.done {
				h.rec.addViolation("%d jobs of the queue work run, more than %d", n+1, maxRunningWork)
			}
		})
	}
	return c
}

func stillOpen(calls []*holding) (open []*holding) {
	for _, c := range calls {
		if !c.done {
			open = append(open, c)
		}
	}
	return open
}

func (h *holders) end(c *holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.done = true
	delete(h.open, c)
}

// setFrozen notes that a server was stopped, or continues. A server that continues must end, at
// once, the work whose lease it has lost.
func (h *holders) setFrozen(server int, frozen bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.frozen[server] = frozen; frozen {
		return
	}
	h.checks.Go(func() {
		time.Sleep(2 * overlapGrace)
		h.mu.Lock()
		defer h.mu.Unlock()
		for c := range h.open {
			calls := h.calls[c.Echo]
			if c.server == server && !h.frozen[server] && calls[len(calls)-1] != c {
				h.rec.addViolation("server %d was stopped, lost its lease of %s, and goes on with it", server, c.Echo)
			}
		}
	})
}

// numbers returns the calls that a job has made, in order.
func (h *holders) numbers(echo string) (numbers []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls[echo] {
		numbers = append(numbers, c.number)
	}
	return numbers
}

// verify checks the output and the result of a job of the queue "work".
func (h *holders) verify(k *jobRecord, result json.RawMessage) {
	of := k.work()
	outputs := h.rec.outputs(k)
	numbers := h.numbers(of.Echo)
	last := 0
	for _, output := range outputs {
		var number int
		if _, err := fmt.Sscanf(output, "[%d:0]", &number); err != nil || !strings.HasPrefix(text(number, of.Tokens), output) {
			h.rec.addViolation("an attempt of %s has output with a gap or a repetition: %s; its log is %v", k.id, output, k.entries)
		} else if !slices.Contains(numbers, number) || number <= last {
			h.rec.addViolation("the output of %s is of call %d after call %d; its calls are %v", k.id, number, last, numbers)
		}
		last = number
	}
	if len(result) == 0 || string(result) == "null" {
		return
	}
	var completion struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(result, &completion); err != nil || len(completion.Choices) != 1 || len(numbers) == 0 {
		h.rec.addViolation("the result of %s, which made the calls %v, is %s", k.id, numbers, result)
		return
	}
	// The result is of the lease that was the last to begin.
	if got, want := completion.Choices[0].Message.Content, text(numbers[len(numbers)-1], of.Tokens); got != want {
		h.rec.addViolation("the result of %s is %s, want that of its last call, %s", k.id, got, want)
	}
}
