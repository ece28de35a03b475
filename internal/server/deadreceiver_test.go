package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// A thousand ends at once whose receiver is silent take no more slots than one receiver may have,
// and do not delay the delivery to another receiver.
func TestSilentReceiverDelaysNoOther(t *testing.T) {
	t.Parallel()
	const jobs, slots = 1000, 4
	s, good := serve(t, func(c *config.Config) { c.Callbacks.PerReceiver, c.Callbacks.Concurrency = slots, 4*slots }), newReceiver(t)
	var asked atomic.Int32
	all := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not noticed
		if asked.Add(1) == slots {
			close(all)
		}
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(silent.CloseClientConnections)
	batch := make([]string, jobs)
	for i := range batch {
		batch[i] = `{"queue":"sim","input":{},"key":"` + strconv.Itoa(i%7) + `","callback":"` + silent.URL + `/` + strconv.Itoa(i) + `"}`
	}
	if status, answer := s.call("POST", "/v1/jobs/batch", `{"jobs":[`+strings.Join(batch, ",")+`]}`); status >= 300 {
		t.Fatalf("%d %v", status, answer)
	}
	<-all
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":"`+good.URL+`"}`)
	got := good.next()
	s.ends(got.id, "succeeded")
	if n := asked.Load(); n != slots {
		t.Errorf("the silent receiver holds %d slots, want %d", n, slots)
	}
}

// A receiver that is listed in callbacks.allow is reached by a server beyond loopback, and no other
// one on this machine.
func TestCallbackInside(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := serve(t, func(c *config.Config) {
		c.Listen, c.Insecure = "0.0.0.0:0", true
		c.Callbacks.Allow = []string{strings.TrimPrefix(r.URL, "http://")}
	})
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":"`+r.URL+`"}`)
	r.next()
	for _, url := range []string{"http://127.0.0.1:1", "http://localhost", "https://169.254.169.254/latest", "https://10.0.0.1/"} {
		status, answer := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"callback":"`+url+`"}`)
		if status != 400 || answer["code"] != "bad_callback" || !strings.Contains(answer["detail"].(string), "callbacks.allow") {
			t.Errorf("%s: %d %v", url, status, answer)
		}
	}
}
