package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/cutproxy"
)

// dictatedModel is a model that streams the words that the test sends to it.
type dictatedModel struct {
	words chan string // closed at the end of the answer
}

func (d dictatedModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	write := func(text string) {
		fmt.Fprintf(w, "data: %s\n\n", text)
		w.(http.Flusher).Flush()
	}
	write(`{"choices":[{"index":0,"delta":{"role":"assistant"}}]}`)
	for talking := true; talking; {
		var word string
		select {
		case word, talking = <-d.words:
			write(fmt.Sprintf(`{"choices":[{"index":0,"delta":{"content":%q}}]}`, word))
		case <-r.Context().Done():
			return
		}
	}
	write(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)
	write(`[DONE]`)
}

// servePHP runs the example on PHP's own server, which has one worker, on a free port.
func servePHP(t *testing.T, meanwhile string) (url string) {
	t.Helper()
	cmd := exec.Command(program(t, "php"), "-S", "127.0.0.1:0", "-t", "../../examples/php")
	cmd.Env = append(os.Environ(), "MEANWHILE_URL="+meanwhile)
	cmd.WaitDelay = time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	_, url, _ = strings.Cut(lineWith(t, stderr, "started"), "(")
	url, _, _ = strings.Cut(url, ")")
	return url
}

// A PHP page submits a question and ends. The browser follows the answer after a reload, after
// an outage of its network, and in two tabs.
func TestPHPExampleInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("runs PHP and a browser")
	}
	b := openBrowser(t)
	model := dictatedModel{make(chan string)}
	upstream := httptest.NewServer(model)
	t.Cleanup(upstream.Close)
	network := cutproxy.New(t) // each of PHP and the server needs the other's address
	page := servePHP(t, network.URL())
	s := serve(t, func(c *config.Config) {
		c.Models = []config.Model{{Name: "dictated", BaseURL: upstream.URL + "/v1"}}
		c.AllowedOrigins, c.PublicURL = []string{page}, network.URL()
	})
	network.SetTarget(s.components.listener.Addr().String())

	first := b.open(page + "/")
	first.until("button", `text === 'Ask'`)
	first.leave(`document.querySelector('[name=question]').value = 'How do tides <work>?'; document.querySelector('form').submit()`)
	model.words <- "The moon "
	first.until("#answer", `text === 'The moon '`)
	if job := first.run(`location.search`); job == "" {
		t.Fatal("the page has no job")
	}

	first.leave(`location.reload()`)
	first.until("#answer", `text === 'The moon '`)
	model.words <- "pulls "
	first.until("#answer", `text === 'The moon pulls '`)

	second := b.open(first.run(`location.href`)) // PHP is free to answer it
	second.until("#answer", `text === 'The moon pulls '`)

	first.offline(true)
	network.Cut() // the second tab reconnects
	first.until("#state", `text.startsWith('offline')`)
	model.words <- "the "
	model.words <- "sea."
	second.until("#answer", `text === 'The moon pulls the sea.'`)
	if got := first.run(`document.querySelector('#answer').textContent`); got != "The moon pulls " {
		t.Errorf("offline the first tab shows %q", got)
	}
	first.offline(false)
	first.until("#answer", `text === 'The moon pulls the sea.'`)

	close(model.words)
	for name, tab := range map[string]*tab{"first": first, "second": second} {
		tab.until("#state", `text === 'succeeded'`)
		if got := tab.run(`document.querySelector('#answer').textContent`); got != "The moon pulls the sea." {
			t.Errorf("in the end the %s tab shows %q", name, got)
		}
	}
	second.leave(`location.reload()`) // after the end of the answer
	second.until("#state", `text === 'succeeded'`)
	second.until("#answer", `text === 'The moon pulls the sea.'`)
}

// If Meanwhile is unreachable, the page shows an error. It shows no job of another user.
func TestPHPExampleWithMissingParts(t *testing.T) {
	s := serve(t, nil)
	page := servePHP(t, s.URL())
	get := func(query string) string {
		t.Helper()
		res, err := http.Get(page + "/" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	id, _ := s.watchURL(`{}`, "X-User-ID", "ann")
	if text := get("?job=" + id); !strings.Contains(text, "there is no job") || strings.Contains(text, "wt_") {
		t.Errorf("someone else's job: %s", text)
	}
	s.quit()
	if text := get("?job=" + id); !strings.Contains(text, "Meanwhile does not answer.") {
		t.Errorf("without a server: %s", text)
	}
}
