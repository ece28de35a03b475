package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	streamCount     = 1000
	tokensPerSecond = 20
	firstToken      = 200 * time.Millisecond
)

// streams measures how long a token takes from a model through the server to a watcher. It
// compares this with watchers that read from the model directly.
func (o *Options) streams(ctx context.Context, f *Figure) error {
	n, where := o.scaled(streamCount), ""
	if o.Database != "" {
		n, where = o.scaled(streamCount/2), " at another server than the one that runs it"
	}
	f.How = fmt.Sprintf("%d answers of %d tokens, %d a second, each watched by server-sent events%s", n, o.tokensPerAnswer(), tokensPerSecond, where)
	model, err := start(ctx, o.Model, nil, o.Log)
	if err != nil {
		return err
	}
	defer model.stop()
	t, err := o.startTarget(ctx, modelQueue(n, model.url))
	if err != nil {
		return err
	}
	defer t.close()
	if o.Database != "" { // a submit whose queue has a free slot runs where it was sent
		if err := t.startPeers(ctx, 1); err != nil {
			return err
		}
	}

	o.Step("the floor: as many watchers of the model itself")
	direct, err := o.readAllAnswers(ctx, n, o.askModel(model.url))
	if err != nil {
		return err
	}
	o.Step("streams: " + f.How)
	c, closeClient, err := t.client()
	if err != nil {
		return err
	}
	defer closeClient()
	run, err := o.watchModel(ctx, t, model, n, c)
	if err != nil {
		return err
	}
	p50, p99 := 30.0, 120.0
	if o.Database != "" {
		p50, p99 = 40, 200
	}
	run.report(f, direct, p50, p99)
	return nil
}

// modelQueue returns the configuration of a server that sends this many requests to a model
// at once.
func modelQueue(concurrency int, url string) string {
	return fmt.Sprintf("shutdown_grace_s: 0\nmodels:\n  - name: sim\n    base_url: %s/v1\nqueues:\n  chat:\n    concurrency: %d\n    max_depth: %d\n",
		url, concurrency, concurrency+100)
}

// tokensPerAnswer returns the tokens of an answer that takes the whole duration.
func (o *Options) tokensPerAnswer() int { return max(2, int(o.Duration.Seconds()*tokensPerSecond)) }

// tokenDelays has the measurements of the watchers.
type tokenDelays struct {
	delays []time.Duration // for each token, from the model's write to the watcher's read
	events int             // number of events with tokens
}

// streamRun is one run through the server.
type streamRun struct {
	tokenDelays
	server, model, load time.Duration // CPU time
	written             int64         // bytes written to the disk
	duration            time.Duration
}

func (o *Options) watchModel(ctx context.Context, t *target, model *process, n int, c *client.Client) (streamRun, error) {
	before, err := usages(t.proc, model)
	if err != nil {
		return streamRun{}, err
	}
	used, began := cpuTime(), time.Now()
	h, err := o.readAllAnswers(ctx, n, o.askServer(c, t.urls()[len(t.urls())-1]))
	if err != nil {
		return streamRun{}, err
	}
	took, load := time.Since(began), cpuTime()-used
	after, err := usages(t.proc, model)
	if err != nil {
		return streamRun{}, err
	}
	return streamRun{
		tokenDelays: h, server: after[0].cpu - before[0].cpu, model: after[1].cpu - before[1].cpu, load: load,
		written: after[0].written - before[0].written, duration: took,
	}, nil
}

func (s streamRun) report(f *Figure, direct tokenDelays, p50, p99 float64) {
	f.fact("took", s.duration.Seconds(), "s")
	f.fact("tokens", float64(len(s.delays)), "")
	f.fact("entries", float64(s.events), "")
	f.fact("written", mib(s.written), "MiB")
	f.fact("written for an entry", float64(s.written)/float64(max(s.events, 1)), "bytes")
	busy := func(cpu time.Duration) float64 { return 100 * cpu.Seconds() / s.duration.Seconds() }
	f.fact("CPU of the server", busy(s.server), "% of a core")
	f.fact("CPU of the model", busy(s.model), "% of a core")
	f.fact("CPU of the watchers", busy(s.load), "% of a core")
	f.spread("delay without a server", direct.delays)
	l := f.spread("delay", s.delays)
	f.goalMax("delay of a token, P50", l.P50, p50, "ms")
	f.goalMax("delay of a token, P99", l.P99, p99, "ms")
}

// question returns a chat-completions body. The delay of the first token depends on i, so
// the answers do not write at the same moments.
func (o *Options) question(i int) json.RawMessage {
	first := firstToken + time.Duration(i)*time.Second/tokensPerSecond/7%(time.Second/tokensPerSecond)
	return json.RawMessage(fmt.Sprintf(`{"model":"sim","stream":true,"messages":[{"role":"user","content":"question %d"}],`+
		`"sim":{"tokens":%d,"tokens_per_s":%d,"first_token_ms":%.3f}}`, i, o.tokensPerAnswer(), tokensPerSecond, float64(first)/1e6))
}

// openAnswer opens the stream with the answer to question i.
type openAnswer func(ctx context.Context, i int) (*stream, error)

func (o *Options) askModel(url string) openAnswer {
	return func(ctx context.Context, i int) (*stream, error) {
		return openStream(ctx, host(url), postRequest(host(url), "/v1/chat/completions", string(o.question(i))))
	}
}

func (o *Options) askServer(c *client.Client, url string) openAnswer {
	return func(ctx context.Context, i int) (*stream, error) {
		j, err := c.Submit(ctx, client.Submission{Queue: "chat", Input: o.question(i)})
		if err != nil {
			return nil, err
		}
		return openStream(ctx, host(url), getRequest(host(url), "/v1/jobs/"+j.ID+"/events"))
	}
}

// readAllAnswers asks n questions and reads all answers to their end.
func (o *Options) readAllAnswers(ctx context.Context, n int, ask openAnswer) (tokenDelays, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := make([]tokenDelays, n)
	dialing := make(chan struct{}, dialConcurrency)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			// Without a limit the kernel may drop new connections.
			dialing <- struct{}{}
			s, err := ask(ctx, i)
			<-dialing
			if err == nil {
				parts[i], err = readAnswer(s, o.tokensPerAnswer())
				s.close()
			}
			if err != nil {
				cancel(fmt.Errorf("answer %d of %d: %w", i+1, n, err))
			}
		})
	}
	all.Wait()
	var sum tokenDelays
	for _, p := range parts {
		sum.delays = append(sum.delays, p.delays...)
		sum.events += p.events
	}
	return sum, context.Cause(ctx)
}

// readAnswer reads a stream to its end and checks the number of tokens.
func readAnswer(s *stream, tokens int) (tokenDelays, error) {
	var h tokenDelays
	for {
		event, data, err := s.next()
		if err != nil {
			return h, err
		}
		now := time.Now()
		n := len(h.delays)
		for _, at := range parseStamps(data) {
			h.delays = append(h.delays, now.Sub(at))
		}
		if len(h.delays) > n {
			h.events++
		}
		if event == "done" || string(data) == "[DONE]" {
			break
		}
	}
	// A lost token would make the delays look better than they are.
	if len(h.delays) != tokens {
		return h, fmt.Errorf("%d tokens came, not %d", len(h.delays), tokens)
	}
	return h, nil
}

// parseStamps returns the times in the text of an event: microseconds since 1970, each
// followed by a space. The text is the data of an output entry, or the content of an event
// of the model.
func parseStamps(data []byte) []time.Time {
	_, text, found := bytes.Cut(data, []byte(`"kind":"text","data":"`))
	if !found {
		_, text, found = bytes.Cut(data, []byte(`"delta":{"content":"`))
	}
	if !found {
		return nil
	}
	text, _, _ = bytes.Cut(text, []byte(`"`))
	var at []time.Time
	for _, word := range bytes.Fields(text) {
		if us, err := strconv.ParseInt(string(word), 10, 64); err == nil {
			at = append(at, time.UnixMicro(us))
		}
	}
	return at
}
