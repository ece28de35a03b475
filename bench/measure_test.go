package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

func TestNamesSelectBenches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule  string
		asked []string
		want  string
	}{
		{"without a name the default benches", nil, "sequential parallel throughput"},
		{"a name selects one bench", []string{"idle"}, "idle"},
		{"names may have any order and repeat", []string{"streams", "idle", "streams"}, "idle streams"},
		{"all selects every bench", []string{All, "idle"}, strings.Join(Names(), " ")},
	} {
		o := Defaults()
		o.Names = tt.asked
		if got := strings.Join(o.names(), " "); got != tt.want {
			t.Errorf("%s: %s", tt.rule, got)
		}
	}
}

func TestGoalReportsMetOrMissed(t *testing.T) {
	t.Parallel()
	var f Figure
	f.goalMax("a", 3, 3, "s")
	f.goalMax("b", 3.0001, 3, "s")
	f.goalMin("c", 3, 3, "")
	f.goalMin("d", 2.9999, 3, "")
	var text strings.Builder
	for _, g := range f.Goals {
		g.print(&text)
	}
	const want = "  PASS  a: 3 s, at most 3 s\n  MISS  b: 3 s, at most 3 s\n  PASS  c: 3, at least 3\n  MISS  d: 3, at least 3\n"
	if text.String() != want {
		t.Errorf("got\n%swant\n%s", &text, want)
	}
}

func TestUsageReadsProcess(t *testing.T) {
	t.Parallel()
	stat := filepath.Join(t.TempDir(), "stat")
	const line = "42 (a (strange) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 9 0 100 0 0\n"
	if err := os.WriteFile(stat, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := cpuTicks(stat); got != 300 || err != nil {
		t.Errorf("%d ticks, %v", got, err)
	}
	if err := os.WriteFile(stat, []byte("42 (short) S 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cpuTicks(stat); err == nil {
		t.Error("a short line was accepted")
	}
}

func TestStreamReadsEvents(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*streamBuffer)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, ":\n\nevent: snapshot\nid: 1\ndata: %s %s\n\n", r.Method, body)
		_ = http.NewResponseController(w).Flush()
		fmt.Fprintf(w, "event: output\ndata: %s\n\ndata: [DONE]\n\nevent: done\ndata: {}\n\n", long)
	}))
	defer srv.Close()
	addr := host(srv.URL)

	s, err := openStream(t.Context(), addr, postRequest(addr, "/", "hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, want := range []struct{ event, data string }{{"snapshot", "POST hello"}, {"output", "xxxx"}, {"", "[DONE]"}, {"done", "{}"}} {
		event, data, err := s.next()
		if err != nil || event != want.event || !strings.HasPrefix(string(data), want.data) {
			t.Errorf("got %q with %.20q (%v), want %+v", event, data, err, want)
		}
	}
	if _, _, err := s.next(); err == nil {
		t.Error("an ended stream returned an event")
	}
	if _, err := openStream(t.Context(), addr, getRequest(addr, "/missing")); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the error is %v", err)
	}
}

func TestNotifyWatchersMeasuresAll(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(NewFloor())
	defer srv.Close()
	streams, err := openAll(t.Context(), 3, host(srv.URL), floorEvents)
	defer closeAll(streams)
	if err != nil {
		t.Fatal(err)
	}
	half, all, err := notifyWatchers(t.Context(), streams, func() error {
		res, err := http.Post(srv.URL+floorEnd, "", nil)
		if err == nil {
			err = res.Body.Close()
		}
		return err
	})
	http.DefaultClient.CloseIdleConnections()
	if err != nil || half <= 0 || all < half {
		t.Errorf("half after %s, all after %s: %v", half, all, err)
	}
	if _, err := openAll(t.Context(), 3, host(srv.URL), "/"); err == nil {
		t.Error("a page that is not a stream was accepted")
	}
}

func TestFloorAnswersBatch(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(NewFloor())
	defer srv.Close()
	c, closeClient, err := dialLean(t.Context(), srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer closeClient()
	if err := submitBatch(t.Context(), c, repeatJob(client.Submission{Queue: "sim", Input: input(minPayload)}, 3)); err != nil {
		t.Error(err)
	}
}

func TestParseStamps(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]int{
		`{"seq":7,"attempt":1,"kind":"text","data":"1800000000000000 1800000000000050 "}`:                              2,
		`{"id":"x","choices":[{"delta":{"content":"1800000000000000 "},"index":0}]}`:                                   1,
		`{"seq":7,"attempt":1,"kind":"progress","data":{"percent":10}}`:                                                0,
		`{"id":"1800000000000000","choices":[{"delta":{"content":"","role":"assistant"}}],"created":1800000000000000}`: 0,
	} {
		at := parseStamps([]byte(data))
		if len(at) != want || want > 0 && at[0].Unix() != 1_800_000_000 {
			t.Errorf("%v in %s", at, data)
		}
	}
}

func TestFairnessCountsStartsOfHeavyKey(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	heavy := []time.Time{at(10), at(20), at(20), at(30), at(40)}
	for _, tt := range []struct {
		rule           string
		ready, started int
		turns          float64
	}{
		{"a start before the ready time does not count", 20, 25, 0},
		{"a start between the ready time and the job's start counts", 15, 35, 3},
		{"a start at the same time as the job does not count", 25, 30, 0},
		{"a start after the job does not count", 1, 5, 0},
	} {
		var f Figure
		reportFairness(&f, []lightResult{{at(tt.ready), at(tt.started)}}, heavy)
		if got := f.Goals[0].Got; got != tt.turns {
			t.Errorf("%s: %v turns, want %v", tt.rule, got, tt.turns)
		}
	}
}
