package chat

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// BenchmarkReads measures the reads of the chat API for a user with 1,000 conversations,
// while questions wait and one is being answered. It calls the handlers without a
// connection.
func BenchmarkReads(b *testing.B) {
	h := newHarness(b, 1)
	mux := gate.NewMux()
	h.api.Register(mux)
	handler := (&gate.Gate{}).Handler(mux)
	ended := h.ask("ann", "q")
	conv := ended.text("conversation_id")
	h.next().done(strings.Repeat("word ", 200))
	for i := range 9 {
		h.ask("ann", "q", conv)
		h.next().done(strings.Repeat("word ", 200+i))
	}
	for i := range 900 {
		h.call("ann", "POST", "/api/conversations", fmt.Sprintf(`{"title":"%d"}`, i))
	}
	pending := h.ask("ann", "q")
	h.next().text(strings.Repeat("word ", 100))
	for range 99 {
		h.ask("ann", "q")
	}
	for _, c := range []struct{ name, path string }{
		{"conversations", "/api/conversations"},
		{"messages", "/api/conversations/" + conv + "/messages"},
		{"messages-answering", "/api/conversations/" + pending.text("conversation_id") + "/messages"},
		{"status-running", pending.text("urls.status")},
		{"status-ended", ended.text("urls.status")},
	} {
		b.Run(c.name, func(b *testing.B) {
			req := httptest.NewRequest("GET", "http://localhost"+c.path, nil)
			req.Header.Set("X-User-ID", "ann")
			req.RemoteAddr = "127.0.0.1:1"
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				if handler.ServeHTTP(w, req); w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
