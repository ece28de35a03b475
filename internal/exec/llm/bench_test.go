package llm

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// countingSink counts the written bytes and stores nothing.
type countingSink struct{ bytes int }

func (h *countingSink) ResetTimeouts()              {}
func (h *countingSink) Killed() <-chan struct{}     { return nil }
func (h *countingSink) Alive()                      {}
func (h *countingSink) Text(piece string) error     { h.bytes += len(piece); return nil }
func (h *countingSink) Event(value []byte) error    { h.bytes += len(value); return nil }
func (h *countingSink) Log(string) error            { return nil }
func (h *countingSink) Progress(job.Progress) error { return nil }
func (h *countingSink) Result(job.Result)           {}
func (h *countingSink) Usage([]byte)                {}

// BenchmarkStream measures a call to a simulated model over loopback that streams its tokens at
// full speed. Both ends are in this process.
func BenchmarkStream(b *testing.B) {
	for _, tokens := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("tokens=%d", tokens), func(b *testing.B) {
			upstream := httptest.NewServer(simmodel.New(simmodel.Options{Models: []string{"m"}, Tokens: tokens}))
			defer upstream.Close()
			e, err := New(Config{Models: []Model{{Name: "m", BaseURL: upstream.URL + "/v1"}}})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			task := exectest.Task([]byte(hello))
			b.ReportAllocs()
			for b.Loop() {
				out := &countingSink{}
				if err := e.Execute(b.Context(), task, out); err != nil || out.bytes == 0 {
					b.Fatalf("%d bytes were written: %v", out.bytes, err)
				}
			}
			b.ReportMetric(float64(b.N*tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// tokenEvent is the event of one token, as most servers write it.
const tokenEvent = `data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1760000000,"model":"m",` +
	`"choices":[{"index":0,"delta":{"content":"token "},"logprobs":null,"finish_reason":null}]}` + "\n\n"

const lastEvents = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"

// tokenTransport is a transport whose answers have the given number of tokens, one per read.
type tokenTransport int

func (m tokenTransport) RoundTrip(*http.Request) (*http.Response, error) {
	head := http.Header{"Content-Type": {"text/event-stream"}}
	return &http.Response{StatusCode: http.StatusOK, Header: head, Body: &m}, nil
}

func (m *tokenTransport) Read(p []byte) (int, error) {
	switch *m--; {
	case *m >= 0:
		return copy(p, tokenEvent), nil
	case *m == -1:
		return copy(p, lastEvents), nil
	}
	return 0, io.EOF
}

func (m *tokenTransport) Close() error { return nil }

// BenchmarkToken measures a token from the transport to the sink, without sockets and HTTP.
func BenchmarkToken(b *testing.B) {
	const tokens = 1000
	e, err := New(Config{Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}}, Transport: tokenTransport(tokens)})
	if err != nil {
		b.Fatal(err)
	}
	task := exectest.Task([]byte(hello))
	b.ReportAllocs()
	for n := 0; n < b.N; n += tokens {
		if err := e.Execute(b.Context(), task, &countingSink{}); err != nil {
			b.Fatal(err)
		}
	}
}

const reasoningEvent = `data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1760000000,"model":"m",` +
	`"choices":[{"index":0,"delta":{"reasoning_content":"token "},"logprobs":null,"finish_reason":null}]}` + "\n\n"

// reasoningTransport is a transport whose answers have the given number of pieces of reasoning,
// one per read.
type reasoningTransport int

func (m reasoningTransport) RoundTrip(*http.Request) (*http.Response, error) {
	head := http.Header{"Content-Type": {"text/event-stream"}}
	return &http.Response{StatusCode: http.StatusOK, Header: head, Body: &m}, nil
}

func (m *reasoningTransport) Read(p []byte) (int, error) {
	switch *m--; {
	case *m >= 0:
		return copy(p, reasoningEvent), nil
	case *m == -1:
		return copy(p, lastEvents), nil
	}
	return 0, io.EOF
}

func (m *reasoningTransport) Close() error { return nil }

// BenchmarkReasoning measures a piece of reasoning from the transport to the sink: a chunk that
// is not plain.
func BenchmarkReasoning(b *testing.B) {
	const pieces = 1000
	e, err := New(Config{Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}}, Transport: reasoningTransport(pieces)})
	if err != nil {
		b.Fatal(err)
	}
	task := exectest.Task([]byte(hello))
	b.ReportAllocs()
	for n := 0; n < b.N; n += pieces {
		if err := e.Execute(b.Context(), task, &countingSink{}); err != nil {
			b.Fatal(err)
		}
	}
}

// streamServer answers every connection with the beginning of a stream and keeps it open.
type streamServer struct {
	net.Listener
	conns []net.Conn
}

func newStreamServer(b *testing.B) *streamServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return &streamServer{Listener: l}
}

func (l *streamServer) accept(n int) error {
	request := make([]byte, 4<<10)
	for range n {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		l.conns = append(l.conns, c)
		if _, err := c.Read(request); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
			return err
		}
	}
	return nil
}

func chunked(data string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data) }

// signallingSink is a sink that signals every piece of text.
type signallingSink struct {
	countingSink
	tokens *sync.WaitGroup
}

func (e *signallingSink) Text(string) error { e.tokens.Done(); return nil }

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkOpenCalls measures a thousand open calls that receive one token at a time over
// loopback: the processor time per token, which includes the server's system call, and the
// memory per open call.
func BenchmarkOpenCalls(b *testing.B) {
	const calls = 1000
	server := newStreamServer(b)
	defer server.Close()
	e, err := New(Config{Models: []Model{{Name: "m", BaseURL: "http://" + server.Addr().String() + "/v1"}}})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	before := memoryInUse()
	var all, tokens sync.WaitGroup
	tokens.Add(calls)
	for range calls {
		all.Go(func() { _ = e.Execute(b.Context(), exectest.Task([]byte(hello)), &signallingSink{tokens: &tokens}) })
	}
	if err := server.accept(calls); err != nil {
		b.Fatal(err)
	}
	send := func(data []byte) {
		for _, c := range server.conns {
			if _, err := c.Write(data); err != nil {
				b.Error(err)
			}
		}
	}
	piece := chunked(tokenEvent)
	send(piece)
	tokens.Wait()
	bytes := float64(memoryInUse()-before) / calls
	b.ResetTimer()
	start := cpuTime()
	for range b.N {
		tokens.Add(calls)
		send(piece)
		tokens.Wait()
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/1000/float64(b.N*calls), "cpu-µs/token")
	b.ReportMetric(bytes, "bytes/call")
	send(append(chunked(lastEvents), "0\r\n\r\n"...))
	all.Wait()
	for _, c := range server.conns {
		c.Close()
	}
}

// memoryInUse returns the size of the heap and the stacks.
func memoryInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
