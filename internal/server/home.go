package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed" // the page's own files
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
)

//go:embed web/home.html
var homeLayout string

//go:embed web/home.css
var homeStyle string

var homePage = template.Must(template.New("home").Parse(homeLayout))

// homePolicy lets the page use only its own style and load nothing.
var homePolicy = func() string {
	sum := sha256.Sum256([]byte(homeStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// home answers a browser at / with a page: what this is, its queues, and where to go on. Any
// other client gets the same 404 as for every path that is no call.
type home struct {
	publicURL string // "" when unknown
	queues    func(context.Context) ([]engine.QueueView, error)
}

// homeData is the data of the page's template.
type homeData struct {
	Style   template.CSS
	Queues  []engine.QueueView
	Example string
}

func (h home) register(mux gate.Routes) {
	// The page has the counts of all tenants.
	mux.Handle("GET /{$}", gate.Scope(access.Admin), api.Wrap(nil, api.WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Vary", "Accept")
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			api.WriteNotFound(w, r)
			return nil
		}
		queues, err := h.queues(r.Context())
		if err != nil {
			return err
		}
		var page bytes.Buffer
		if err := homePage.Execute(&page, homeData{template.CSS(homeStyle), queues, h.example(r, queues)}); err != nil {
			return err
		}
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", homePolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		api.Write(w, http.StatusOK, []string{"text/html; charset=utf-8"}, page.Bytes())
		return nil
	}))
}

// example returns a command that submits a job, where there is a queue for such a try; "" else.
func (h home) example(r *http.Request, queues []engine.QueueView) string {
	for _, q := range queues {
		if q.Executor == "sim" {
			return "curl -s " + cmp.Or(strings.TrimSuffix(h.publicURL, "/"), "http://"+r.Host) + "/v1/jobs -H 'Content-Type: application/json' \\\n" +
				`  -d '{"queue": "` + q.Name + `", "input": {"tokens": 30, "tokens_per_s": 5}}'`
		}
	}
	return ""
}
