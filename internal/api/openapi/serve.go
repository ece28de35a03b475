package openapi

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// Register adds the description to a mux, for programs and for people. Both are made
// when they are first asked for.
func Register(mux api.Mux) {
	mux.Handle("GET /openapi.json", serve("application/json", sync.OnceValues(JSON)))
	mux.Handle("GET /docs", pageOnly(serve("text/html; charset=utf-8", sync.OnceValues(page))))
}

// serve answers a body that is always the same; whoever has it already is told so.
func serve(contentType string, make func() ([]byte, error)) http.Handler {
	return api.Wrap(nil, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		body, err := make()
		if err != nil {
			return err
		}
		tag := `"` + digest(string(body)) + `"`
		h := w.Header()
		h.Set("ETag", tag)
		h.Set("Cache-Control", "no-cache") // kept, and asked about: it changes with the server
		if strings.Contains(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		api.Write(w, http.StatusOK, []string{contentType}, body)
		return nil
	})
}

// pageOnly tells a browser that the page needs nothing but what is in it.
func pageOnly(next http.Handler) http.Handler {
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

// digest is a text's SHA-256, as a Content-Security-Policy writes it.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}
