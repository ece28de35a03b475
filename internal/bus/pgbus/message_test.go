package pgbus

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A notice of any size arrives whole, in messages that Postgres takes.
func TestNoticesFitIntoMessages(t *testing.T) {
	t.Parallel()
	for _, size := range []struct{ jobs, queues, name int }{{1, 0, 0}, {0, 1, 5}, {3, 2, 10}, {2000, 500, 60}, {400, 3, 2900}, {0, 0, 0}} {
		p := &pending{jobs: map[job.ID]struct{}{}, queues: map[string]struct{}{}}
		for range size.jobs {
			p.jobs[job.NewID()] = struct{}{}
		}
		for i := range size.queues {
			p.queues[fmt.Sprintf("%0*d", size.name, i)] = struct{}{}
		}
		from := memberID{1, 2, 3}
		jobs, queues := 0, 0
		for _, m := range encodeNotices(from, p) {
			if len(m) >= 8000 {
				t.Errorf("a message has %d bytes, Postgres takes less than 8,000", len(m))
			}
			kind, sender, n, _, err := decode(m)
			if err != nil || kind != kindNotice || sender != from {
				t.Fatalf("a message is read as %q of %v: %v", kind, sender, err)
			}
			for _, id := range n.Jobs {
				if _, ok := p.jobs[id]; !ok {
					t.Errorf("the job %s was not sent", id)
				}
			}
			for _, name := range n.Queues {
				if _, ok := p.queues[name]; !ok {
					t.Errorf("the queue %q was not sent", name)
				}
			}
			jobs, queues = jobs+len(n.Jobs), queues+len(n.Queues)
		}
		if jobs != size.jobs || queues != size.queues {
			t.Errorf("%+v arrives as %d jobs and %d queues", size, jobs, queues)
		}
	}
}

// A queue whose name is too long for any message does not stop the others.
func TestQueueNameTooLongIsLeftOut(t *testing.T) {
	t.Parallel()
	p := &pending{queues: map[string]struct{}{strings.Repeat("q", 10_000): {}, "short": {}}}
	var queues []string
	for _, m := range encodeNotices(memberID{}, p) {
		_, _, n, _, _ := decode(m)
		queues = append(queues, n.Queues...)
	}
	if !slices.Equal(queues, []string{"short"}) {
		t.Errorf("the queues that arrive are %q", queues)
	}
}

func FuzzDecode(f *testing.F) {
	p := &pending{jobs: map[job.ID]struct{}{job.NewID(): {}}, queues: map[string]struct{}{"q": {}}}
	f.Add(encodeNotices(memberID{1}, p)[0])
	f.Add(encodePing(memberID{1}, 7))
	f.Add(base64.RawStdEncoding.EncodeToString([]byte("n12345678\xff\xff\xff\xff\xff\xff\xff\xff\x7f")))
	f.Fuzz(func(t *testing.T, payload string) {
		kind, from, n, ping, err := decode(payload)
		if err != nil {
			return
		}
		again := encodePing(from, ping)
		if kind == kindNotice {
			again = encodeNotice(from, n)
		}
		if _, _, n2, ping2, err := decode(again); err != nil || ping2 != ping || !slices.Equal(n2.Jobs, n.Jobs) || !slices.Equal(n2.Queues, n.Queues) {
			t.Errorf("%q is read as %v, %d, and encoded again as %v, %d (%v)", payload, n, ping, n2, ping2, err)
		}
	})
}
