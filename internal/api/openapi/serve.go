package openapi

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// Register adds /openapi.json and /docs to a mux. The first request for each builds it.
func Register(mux gate.Routes) {
	mux.Handle("GET /openapi.json", gate.AnyCaller(), serve("application/json", sync.OnceValues(JSON)))
	mux.Handle("GET /docs", gate.AnyCaller(), withPolicy(serve("text/html; charset=utf-8", sync.OnceValues(page))))
}

// serve writes a body that never changes, or 304 to a client that has it already.
func serve(contentType string, build func() ([]byte, error)) http.Handler {
	return api.Wrap(nil, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		body, err := build()
		if err != nil {
			return err
		}
		tag := `"` + digest(string(body)) + `"`
		h := w.Header()
		h.Set("ETag", tag)
		h.Set("Cache-Control", "no-cache") // checked each time: a new server has another body
		if strings.Contains(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		api.Write(w, http.StatusOK, []string{contentType}, body)
		return nil
	})
}

// withPolicy lets the page run only its own style and script, and load nothing.
func withPolicy(next http.Handler) http.Handler {
	policy := "default-src 'none'; style-src 'sha256-" + digest(styles) + "'; script-src 'sha256-" + digest(script) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// digest returns the SHA-256 of a text as a Content-Security-Policy writes it.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}
