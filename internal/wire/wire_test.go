package wire

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// says is a server that says so.
func says(t *testing.T, text string) (addr string) {
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

func hear(t *testing.T, w *Wire, path string) (text string, err error) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(w.URL() + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	if path == "/stay" {
		w.Cut()
	}
	rest, err := io.ReadAll(res.Body)
	return string(first) + string(rest), err
}

// A wire leads where it was told last, and breaks what is under way when it is cut.
func TestAWireLeadsAndIsCut(t *testing.T) {
	w := Lay(t)
	if text, err := hear(t, w, "/"); err == nil {
		t.Errorf("it leads nowhere, and there is %q", text)
	}
	for _, text := range []string{"one", "two"} {
		w.Lead(says(t, text))
		if got, err := hear(t, w, "/"); err != nil || got != text {
			t.Errorf("heard %q, %v", got, err)
		}
	}
	if text, err := hear(t, w, "/stay"); err == nil || !strings.HasPrefix(text, "two") {
		t.Errorf("it was cut, and %q was heard to its end", text)
	}
	if text, err := hear(t, w, "/"); err != nil || text != "two" {
		t.Errorf("after a cut: %q, %v", text, err)
	}
	w.Lead("")
	if text, err := hear(t, w, "/"); err == nil {
		t.Errorf("it leads nowhere again, and there is %q", text)
	}
}
