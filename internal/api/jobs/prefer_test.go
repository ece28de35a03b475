package jobs

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestPrefer(t *testing.T) {
	for _, tt := range []struct {
		rule  string
		lines []string
		want  prefer
		ok    bool
	}{
		{"nothing", nil, prefer{}, true},
		{"an empty line", []string{""}, prefer{}, true},
		{"a wait", []string{"wait=10"}, prefer{waits: true, wait: 10 * time.Second}, true},
		{"the longest wait", []string{"wait=60"}, prefer{waits: true, wait: time.Minute}, true},
		{"no wait is one too", []string{"wait=0"}, prefer{waits: true}, true},
		{"names have no case, and space does not count", []string{" Wait = 5 ;x=y"}, prefer{waits: true, wait: 5 * time.Second}, true},
		{"a quoted wait", []string{`wait="5"`}, prefer{waits: true, wait: 5 * time.Second}, true},
		{"both", []string{"respond-async, wait=5"}, prefer{async: true, waits: true, wait: 5 * time.Second}, true},
		{"both on two lines", []string{"wait=5", "respond-async"}, prefer{async: true, waits: true, wait: 5 * time.Second}, true},
		{"the first of two counts", []string{"wait=5, wait=6"}, prefer{waits: true, wait: 5 * time.Second}, true},
		{"others are ignored", []string{"return=minimal, handling=lenient; x, foo"}, prefer{}, true},
		{"a watch URL that may cancel", []string{"watch=cancel"}, prefer{cancels: true}, true},
		{"for a minute", []string{"watch=cancel, Watch-TTL=60, watch-ttl=70"}, prefer{cancels: true, lives: time.Minute}, true},
		{"that may do something else", []string{"watch=delete"}, prefer{}, false},
		{"that lives for no time", []string{"watch-ttl=0"}, prefer{}, false},
		{"that lives for ever", []string{"watch-ttl=99999999999"}, prefer{}, false},
		{"a second beyond", []string{"wait=61"}, prefer{}, false},
		{"an overflow", []string{"wait=99999999999999999999"}, prefer{}, false},
		{"a negative one", []string{"wait=-1"}, prefer{}, false},
		{"a sign", []string{"wait=+1"}, prefer{}, false},
		{"a fraction", []string{"wait=1.5"}, prefer{}, false},
		{"a unit", []string{"wait=5s"}, prefer{}, false},
		{"NaN", []string{"wait=NaN"}, prefer{}, false},
		{"a word", []string{"wait=long"}, prefer{}, false},
		{"nothing after =", []string{"wait="}, prefer{}, false},
		{"no =", []string{"wait"}, prefer{}, false},
		{"half a quote", []string{`wait="`}, prefer{}, false},
		{"a second one that is bad", []string{"wait=5, wait=x"}, prefer{}, false},
	} {
		got, err := preferOf(http.Header{"Prefer": tt.lines})
		if (err == nil) != tt.ok || got != tt.want || err != nil && job.CodeOf(err) != job.Invalid {
			t.Errorf("%s: %+v, %v", tt.rule, got, err)
		}
	}
}

// What was understood can be said again, and is understood as the same.
func FuzzPrefer(f *testing.F) {
	for _, seed := range []string{"wait=5", "respond-async, wait=60", "WAIT=1;q=2,x", `wait="7"`, "watch=cancel", `watch-ttl="60"`, ",,=,;", "wait=-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p, err := preferOf(http.Header{"Prefer": {line}})
		if err != nil {
			return
		}
		if p.wait < 0 || p.wait > job.MaxWait || p.wait > 0 && !p.waits {
			t.Fatalf("%q: %+v", line, p)
		}
		again, err := preferOf(http.Header{"Prefer": strings.Split(p.String(), "\n")})
		if err != nil || again != p {
			t.Fatalf("%q: %+v, then %+v, %v", line, p, again, err)
		}
	})
}
