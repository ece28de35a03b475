package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestParsePrefer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rule  string
		lines []string
		want  Prefer
		ok    bool
	}{
		{"nothing", nil, Prefer{}, true},
		{"an empty line", []string{""}, Prefer{}, true},
		{"a wait", []string{"wait=10"}, Prefer{HasWait: true, Wait: 10 * time.Second}, true},
		{"the longest wait", []string{"wait=60"}, Prefer{HasWait: true, Wait: time.Minute}, true},
		{"a wait of 0", []string{"wait=0"}, Prefer{HasWait: true}, true},
		{"case and space do not count", []string{" Wait = 5 ;x=y"}, Prefer{HasWait: true, Wait: 5 * time.Second}, true},
		{"a quoted wait", []string{`wait="5"`}, Prefer{HasWait: true, Wait: 5 * time.Second}, true},
		{"both", []string{"respond-async, wait=5"}, Prefer{RespondAsync: true, HasWait: true, Wait: 5 * time.Second}, true},
		{"two headers", []string{"wait=5", "respond-async"}, Prefer{RespondAsync: true, HasWait: true, Wait: 5 * time.Second}, true},
		{"two waits: the first counts", []string{"wait=5, wait=6"}, Prefer{HasWait: true, Wait: 5 * time.Second}, true},
		{"unknown preferences are ignored", []string{"return=minimal, handling=lenient; x, foo"}, Prefer{}, true},
		{"a watch URL that may cancel", []string{"watch=cancel"}, Prefer{WatchCancel: true}, true},
		{"a watch URL for a minute", []string{"watch=cancel, Watch-TTL=60, watch-ttl=70"}, Prefer{WatchCancel: true, WatchTTL: time.Minute}, true},
		{"an unknown right of a watch URL", []string{"watch=delete"}, Prefer{}, false},
		{"a watch URL for 0 seconds", []string{"watch-ttl=0"}, Prefer{}, false},
		{"a watch URL for too long", []string{"watch-ttl=99999999999"}, Prefer{}, false},
		{"a wait that is too long", []string{"wait=61"}, Prefer{}, false},
		{"an overflow", []string{"wait=99999999999999999999"}, Prefer{}, false},
		{"a negative wait", []string{"wait=-1"}, Prefer{}, false},
		{"a wait with a sign", []string{"wait=+1"}, Prefer{}, false},
		{"a wait with a fraction", []string{"wait=1.5"}, Prefer{}, false},
		{"a wait with a unit", []string{"wait=5s"}, Prefer{}, false},
		{"NaN", []string{"wait=NaN"}, Prefer{}, false},
		{"a wait that is a word", []string{"wait=long"}, Prefer{}, false},
		{"nothing after =", []string{"wait="}, Prefer{}, false},
		{"no =", []string{"wait"}, Prefer{}, false},
		{"an open quote", []string{`wait="`}, Prefer{}, false},
		{"an invalid second wait", []string{"wait=5, wait=x"}, Prefer{}, false},
	} {
		got, err := ParsePrefer(http.Header{"Prefer": tt.lines})
		if (err == nil) != tt.ok || got != tt.want || err != nil && job.CodeOf(err) != job.Invalid {
			t.Errorf("%s: %+v, %v", tt.rule, got, err)
		}
	}
}

// The String of an accepted header gives the same preferences again.
func FuzzPrefer(f *testing.F) {
	for _, seed := range []string{"wait=5", "respond-async, wait=60", "WAIT=1;q=2,x", `wait="7"`, "watch=cancel", `watch-ttl="60"`, ",,=,;", "wait=-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		p, err := ParsePrefer(http.Header{"Prefer": {header}})
		if err != nil {
			return
		}
		if p.Wait < 0 || p.Wait > job.MaxWait || p.Wait > 0 && !p.HasWait {
			t.Fatalf("%q: %+v", header, p)
		}
		again, err := ParsePrefer(http.Header{"Prefer": strings.Split(p.String(), "\n")})
		if err != nil || again != p {
			t.Fatalf("%q: %+v, then %+v, %v", header, p, again, err)
		}
	})
}
