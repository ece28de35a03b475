package cutproxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startServer starts a server that answers every request with text. Its answer to /stay does not
// end.
func startServer(t *testing.T, text string) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, text)
		if r.URL.Path == "/stay" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// get reads an answer through the proxy. It reads only three bytes of the answer to /stay and
// then calls Cut.
func get(t *testing.T, p *Proxy, path string) (text string, err error) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(p.URL() + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	if path == "/stay" {
		p.Cut()
	}
	rest, err := io.ReadAll(res.Body)
	return string(first) + string(rest), err
}

func TestProxyRelaysToItsTargetAndCutsConnections(t *testing.T) {
	t.Parallel()
	p := New(t)
	if text, err := get(t, p, "/"); err == nil {
		t.Errorf("without a target it answered %q", text)
	}
	for _, text := range []string{"one", "two"} {
		p.SetTarget(startServer(t, text))
		if got, err := get(t, p, "/"); err != nil || got != text {
			t.Errorf("it answered %q, %v; want %q", got, err, text)
		}
	}
	if text, err := get(t, p, "/stay"); err == nil || !strings.HasPrefix(text, "two") {
		t.Errorf("it was cut, and yet the answer ended without an error: %q", text)
	}
	if text, err := get(t, p, "/"); err != nil || text != "two" {
		t.Errorf("after a cut it answered %q, %v", text, err)
	}
	p.SetTarget("")
	if text, err := get(t, p, "/"); err == nil {
		t.Errorf("with its target removed it answered %q", text)
	}
}
