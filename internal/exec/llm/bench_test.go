package llm

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// heard is a sink that counts what is said and keeps nothing.
type heard struct{ bytes int }

func (h *heard) Begin()                      {}
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
