package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLatencyUsesExactSamples(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)*time.Millisecond)
	}
	tests := []struct {
		rule    string
		samples []time.Duration
		want    Latency
	}{
		{"without samples all are zero", nil, Latency{}},
		{"one sample is every percentile", []time.Duration{time.Millisecond}, Latency{1, 1, 1, 1, 1, 1}},
		{"of two samples the P50 is the smaller", []time.Duration{3e6, 1e6}, Latency{2, 2, 1, 3, 3, 3}},
		{"of a hundred samples each percentile is one of them", hundred, Latency{100, 50.5, 50, 90, 99, 100}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := latencyOf(tt.samples); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestInputHasExactSize(t *testing.T) {
	t.Parallel()
	for _, n := range []int{minPayload, 500, maxPayload} {
		if got := input(n); len(got) != n || !json.Valid(got) {
			t.Errorf("%d bytes, want %d: %.60s", len(got), n, got)
		}
	}
}

func TestBudgetLimitsCountAndTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(3, 0)
		n := 0
		for b.take() {
			n++
		}
		if n != 3 || b.take() {
			t.Errorf("a budget of 3 allowed %d jobs", n)
		}
		b = newBudget(1000, time.Second)
		for n = 0; b.take(); n++ {
			<-time.After(300 * time.Millisecond)
		}
		if n != 4 {
			t.Errorf("a budget of a second allowed %d jobs of 300 ms", n)
		}
		b = newBudget(1000, time.Nanosecond)
		<-time.After(time.Second)
		if !b.take() || b.take() {
			t.Error("a budget without time did not allow one job")
		}
	})
}

func TestRunLoadCountsRefusals(t *testing.T) {
	t.Parallel()
	full := &client.Error{Status: 503, Code: client.CodeQueueFull, RetryAfter: 10 * time.Second}
	broken := errors.New("broken")
	tests := []struct {
		rule    string
		budget  int
		length  time.Duration
		answers []error // one for each call; the last one repeats
		jobs    int
		refused int
		took    time.Duration
		err     error
	}{
		{"uses the whole budget", 5, 0, []error{nil}, 5, 0, 5 * time.Second, nil},
		{"counts refusals and waits for Retry-After", 3, 0, []error{nil, full, nil}, 2, 1, 13 * time.Second, nil},
		{"does not wait beyond its time", 100, 5 * time.Second, []error{nil, full}, 1, 1, 5 * time.Second, nil},
		{"ends with the first error", 100, 0, []error{nil, nil, broken}, 2, 0, 3 * time.Second, broken},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, n := time.Now(), 0
				out, err := runLoad(t.Context(), 1, newBudget(tt.budget, tt.length), func(context.Context) error {
					<-time.After(time.Second)
					answer := tt.answers[min(n, len(tt.answers)-1)]
					n++
					return answer
				})
				if len(out.samples) != tt.jobs || out.refused != tt.refused || !errors.Is(err, tt.err) || time.Since(start) != tt.took {
					t.Errorf("%d done, %d refused, %v after %s", len(out.samples), out.refused, err, time.Since(start))
				}
				for _, s := range out.samples {
					if s != time.Second {
						t.Errorf("a sample of %s", s)
					}
				}
			})
		})
	}
}

func TestRunLoadUsesAllClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		out, err := runLoad(t.Context(), 20, newBudget(100, 0), func(context.Context) error {
			<-time.After(time.Second)
			return nil
		})
		if err != nil || len(out.samples) != 100 || time.Since(start) != 5*time.Second {
			t.Errorf("20 clients did %d jobs in %s: %v", len(out.samples), time.Since(start), err)
		}
	})
}

func TestRunLoadStopsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := runLoad(ctx, 1, newBudget(100, 0), func(context.Context) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 3 {
		t.Errorf("%v after %d jobs", err, n)
	}
}

func TestCheckRefusesInvalidOptions(t *testing.T) {
	t.Parallel()
	for rule, set := range map[string]func(*Options){
		"an unknown bench":             func(o *Options) { o.Names = []string{"nope"} },
		"no jobs":                      func(o *Options) { o.Jobs = 0 },
		"too many jobs":                func(o *Options) { o.MaxJobs = maxJobs + 1 },
		"no clients":                   func(o *Options) { o.Clients = 0 },
		"too many connections":         func(o *Options) { o.Connections = []int{1, maxConnections + 1} },
		"a payload below the minimum":  func(o *Options) { o.Payload = minPayload - 1 },
		"a payload above the maximum":  func(o *Options) { o.Payload = maxPayload + 1 },
		"no time":                      func(o *Options) { o.Duration = 0 },
		"a duration above the maximum": func(o *Options) { o.Duration = 365 * 24 * time.Hour },
		"a batch above the maximum":    func(o *Options) { o.Batch = maxBatch + 1 },
		"a negative number of keys":    func(o *Options) { o.Keys = -1 },
		"no scale":                     func(o *Options) { o.Scale = 0 },
		"a URL for a bench that starts its own server": func(o *Options) { o.Names, o.URL = []string{"idle"}, "http://server.test" },
	} {
		o := Defaults()
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		set(&o)
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s was accepted", rule)
		}
	}
}

func TestFloorAnswersWithJob(t *testing.T) {
	t.Parallel()
	var j client.Job
	if err := json.Unmarshal([]byte(floorJob), &j); err != nil || j.Queue != "sim" || !strings.HasPrefix(j.URLs.Cancel, "/v1/jobs/") {
		t.Errorf("the floor answers %+v (%v)", j, err)
	}
}

func TestMeasureFsyncRemovesFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := measureFsync(t.Context(), dir)
	if err != nil || l.Samples == 0 || l.P50 > l.Max {
		t.Errorf("%+v: %v", l, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("the directory still has %v", files)
	}
	if _, err := measureFsync(t.Context(), dir+"/nowhere"); err == nil {
		t.Error("a missing directory was measured")
	}
}

func TestThisMachineReadsHardware(t *testing.T) {
	t.Parallel()
	m := thisMachine()
	if m.CPU == "" || m.Cores < 1 || m.OS == "" || m.Go == "" {
		t.Errorf("%+v", m)
	}
	if procField("/does/not/exist", "x") != "" {
		t.Error("a missing file has a value")
	}
}

func TestReportPrintsAndDecodes(t *testing.T) {
	t.Parallel()
	f := Figure{
		Name: "throughput", How: "jobs", Client: leanClientText, Clients: 64, Jobs: 10, Seconds: 2, PerS: 5,
		Latency: Latency{10, 1, 1, 2, 3, 4}, Flow: &Flow{Done: 10, Refused: 1, BacklogMost: 7, Backlog: []Point{{0.1, 7}}},
		Floor: &Figure{PerS: 50, Latency: Latency{100, 1, 0.5, 2, 3, 4}},
	}
	r := Report{Machine: thisMachine(), Setup: Setup{Payload: 500}, Figures: []Figure{f}}
	var text strings.Builder
	r.Print(&text)
	for _, want := range []string{"500 bytes", "64 clients", "10 jobs", "7 at most", "1 refused", "0.10 of the floor's rate, 2.0 times its P50"} {
		if want = strings.Replace(want, "10 jobs", "jobs        10", 1); !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(line, &again); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("the decoded report is %+v (%v)", again, err)
	}
}

func TestReportNamesSyncMode(t *testing.T) {
	t.Parallel()
	own := Options{Data: t.TempDir()}
	if got, err := own.setup(t.Context()); err != nil || got.Sync != "SQLite WAL; the log is synced before every acknowledgement" {
		t.Errorf("for its own server it is %q, %v", got.Sync, err)
	}
	other := Options{URL: "http://server.test"}
	if got, err := other.setup(t.Context()); err != nil || got.Sync != "as the running server has it" {
		t.Errorf("for a running server it is %q, %v", got.Sync, err)
	}
}

func TestStartReportsFailedCommand(t *testing.T) {
	t.Parallel()
	for rule, tt := range map[string]struct {
		command []string
		message string
	}{
		"missing program":         {[]string{"/does/not/exist"}, "cannot be started"},
		"exit before the address": {[]string{"sh", "-c", "echo no luck; exit 3"}, "exit status 3"},
		"output in the error":     {[]string{"sh", "-c", "echo no luck; exit 3"}, "no luck"},
	} {
		var log strings.Builder
		if _, err := start(t.Context(), tt.command, nil, &log); err == nil || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// The address is sent once it is complete, also when it arrives in several pieces.
func TestStartReadsAddress(t *testing.T) {
	t.Parallel()
	out := &outputTail{next: io.Discard, addr: make(chan string, 1)}
	for _, piece := range []string{"at http://other.test:1 there is nobody\n", `{"msg":"ready","url":"http://127.0`, ".0.1:41", `23","data":"x"}`, "\nhttp://127.0.0.1:5/"} {
		if len(out.addr) > 0 && !strings.HasPrefix(piece, "\n") {
			t.Errorf("the address was sent before %q", piece)
		}
		if _, err := io.WriteString(out, piece); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-out.addr; got != "http://127.0.0.1:4123" || len(out.addr) > 0 {
		t.Errorf("the address is %q", got)
	}
}

func TestStartStopsServerWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := start(ctx, []string{"sh", "-c", "exec sleep 60"}, nil, os.Stderr); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}
