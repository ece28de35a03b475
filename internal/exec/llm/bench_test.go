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

// heard is a sink that counts what is said and keeps nothing.
type heard struct{ bytes int }

func (h *heard) ResetTimeouts()              {}
func (h *heard) Text(piece string) error     { h.bytes += len(piece); return nil }
func (h *heard) Event(value []byte) error    { h.bytes += len(value); return nil }
func (h *heard) Log(string) error            { return nil }
func (h *heard) Progress(job.Progress) error { return nil }
func (h *heard) Result(job.Result)           {}
func (h *heard) Usage([]byte)                {}

// BenchmarkStream is one call of a simulated model over loopback that streams its
// tokens as fast as it can: what relaying a token costs, both ends in this process.
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
				out := &heard{}
				if err := e.Execute(b.Context(), task, out); err != nil || out.bytes == 0 {
					b.Fatalf("%d bytes were said: %v", out.bytes, err)
				}
			}
			b.ReportMetric(float64(b.N*tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// word is the event of a token, as most servers write it.
const word = `data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1760000000,"model":"m",` +
	`"choices":[{"index":0,"delta":{"content":"token "},"logprobs":null,"finish_reason":null}]}` + "\n\n"

const lastWord = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"

// murmur is a transport whose answers are so many words, one a read.
type murmur int

func (m murmur) RoundTrip(*http.Request) (*http.Response, error) {
	head := http.Header{"Content-Type": {"text/event-stream"}}
	return &http.Response{StatusCode: http.StatusOK, Header: head, Body: &m}, nil
}

func (m *murmur) Read(p []byte) (int, error) {
	switch *m--; {
	case *m >= 0:
		return copy(p, word), nil
	case *m == -1:
		return copy(p, lastWord), nil
	}
	return 0, io.EOF
}

func (m *murmur) Close() error { return nil }

// BenchmarkWord is a token from the transport to the sink: what understanding it
// costs, with neither socket nor HTTP.
func BenchmarkWord(b *testing.B) {
	const words = 1000
	e, err := New(Config{Models: []Model{{Name: "m", BaseURL: "http://upstream.invalid/v1"}}, Transport: murmur(words)})
	if err != nil {
		b.Fatal(err)
	}
	task := exectest.Task([]byte(hello))
	b.ReportAllocs()
	for said := 0; said < b.N; said += words {
		if err := e.Execute(b.Context(), task, &heard{}); err != nil {
			b.Fatal(err)
		}
	}
}

// loud answers every connection with the beginning of a stream, and keeps it open.
type loud struct {
	net.Listener
	open []net.Conn
}

func listen(b *testing.B) *loud {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return &loud{Listener: l}
}

func (l *loud) accept(n int) error {
	request := make([]byte, 4<<10)
	for range n {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		l.open = append(l.open, c)
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

// echo is a sink that says when it has heard a word.
type echo struct {
	heard
	words *sync.WaitGroup
}

func (e *echo) Text(string) error { e.words.Done(); return nil }

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkOpen is a thousand calls that hear one word at a time over loopback: the
// processor time of a word, of which the writer's system call is a part, and the
// memory of an open call.
func BenchmarkOpen(b *testing.B) {
	const calls = 1000
	server := listen(b)
	defer server.Close()
	e, err := New(Config{Models: []Model{{Name: "m", BaseURL: "http://" + server.Addr().String() + "/v1"}}})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	before := memory()
	var all, words sync.WaitGroup
	words.Add(calls)
	for range calls {
		all.Go(func() { _ = e.Execute(b.Context(), exectest.Task([]byte(hello)), &echo{words: &words}) })
	}
	if err := server.accept(calls); err != nil {
		b.Fatal(err)
	}
	say := func(data []byte) {
		for _, c := range server.open {
			if _, err := c.Write(data); err != nil {
				b.Error(err)
			}
		}
	}
	piece := chunked(word)
	say(piece)
	words.Wait()
	bytes := float64(memory()-before) / calls
	b.ResetTimer()
	began := cpu()
	for range b.N {
		words.Add(calls)
		say(piece)
		words.Wait()
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/1000/float64(b.N*calls), "cpu-µs/word")
	b.ReportMetric(bytes, "bytes/call")
	say(append(chunked(lastWord), "0\r\n\r\n"...))
	all.Wait()
	for _, c := range server.open {
		c.Close()
	}
}

// memory is what the heap and the stacks take.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
