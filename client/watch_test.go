package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// eventStream returns the events of a job from entry number after to the end.
func eventStream(after, last int) string {
	var b strings.Builder
	fmt.Fprintf(&b, ": hello\n\nid: %d\nevent: snapshot\ndata: {\"id\":\"job_1\",\"status\":\"running\",\"cursor\":%d}\n\n", after, last)
	for seq := after + 1; seq <= last; seq++ {
		kind := []Kind{KindText, KindProgress, KindAttempt}[seq%3]
		event := []EventType{OutputEvent, ProgressEvent, AttemptEvent}[seq%3]
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: {\"seq\":%d,\"attempt\":1,\n", seq, event, seq)
		fmt.Fprintf(&b, "data: \"kind\":\"%s\",\"data\":\"%d\"}\n\n", kind, seq)
	}
	fmt.Fprintf(&b, "id: %d\nevent: done\ndata: {\"id\":\"job_1\",\"status\":\"succeeded\",\"cursor\":%d}\n\n", last, last)
	return b.String()
}

const entries = 7 // number of entries of the test job

// streamHandler answers the n-th connection, from 0, with the result of events, and then
// cuts it.
func streamHandler(events func(n, after int) string) http.HandlerFunc {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = w.Write([]byte(events(n, after)))
		n++
		_ = http.NewResponseController(w).Flush()
		cutConnection()
	}
}

// watchToEnd watches to the end and returns the numbers of the entries, the last event and
// the error.
func watchToEnd(ctx context.Context, c *Client, after int64) (seqs []int64, last Event, err error) {
	for e, eventErr := range c.Watch(ctx, "job_1", after) {
		if eventErr != nil {
			return seqs, last, eventErr
		}
		if e.Entry != nil {
			seqs = append(seqs, e.Entry.Seq)
		}
		last = e
	}
	return seqs, last, nil
}

func sequence(from, to int64) []int64 {
	var s []int64
	for n := from; n <= to; n++ {
		s = append(s, n)
	}
	return s
}

func checkAllEntries(t *testing.T, what string, c *Client, after int64) {
	t.Helper()
	seqs, last, err := watchToEnd(t.Context(), c, after)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if want := sequence(after+1, entries); !reflect.DeepEqual(seqs, want) {
		t.Errorf("%s: the entries are %v, want %v", what, seqs, want)
	}
	if last.Type != DoneEvent || last.Job.Status != Succeeded || last.Cursor != entries {
		t.Errorf("%s: the last event is %+v", what, last)
	}
}

func TestWatchResumesAfterCutAtAnyByte(t *testing.T) {
	t.Parallel()
	whole := eventStream(0, entries)
	step := 1
	if testing.Short() {
		step = 5
	}
	for n := 0; n < len(whole); n += step {
		withNetwork(t, func(t *testing.T, nw *network, c *Client) {
			nw.start(streamHandler(func(conn, after int) string {
				if conn == 0 {
					return whole[:n]
				}
				return eventStream(after, entries)
			}))
			checkAllEntries(t, fmt.Sprintf("cut after %d bytes", n), c, 0)
		})
	}
}

func TestWatchResumesAfterCutAtEveryEntry(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(streamHandler(func(conn, after int) string {
			if after == entries {
				return eventStream(after, entries)
			}
			events := strings.SplitAfterN(eventStream(after, entries), "\n\n", 4)
			return strings.Join(events[:3], "") + events[3][:len(events[3])/2]
		}))
		checkAllEntries(t, "cut each time", c, 2)
	}, WithRetryHook(func(r Retry) {
		if r.Try != 1 {
			t.Errorf("after a stream with a new entry the pause was number %d", r.Try)
		}
	}))
}

func TestWatchReconnectsWhileJobIsSilent(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		conns := 0
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if conns++; conns > 50 {
				streamHandler(func(_, after int) string { return eventStream(after, entries) })(w, r)
			}
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte(": hello\n\n"))
			_ = http.NewResponseController(w).Flush()
			<-time.After(30 * time.Second)
			_, _ = w.Write([]byte(": still here\n\n"))
		}))
		checkAllEntries(t, "cut by a proxy", c, 0)
	}, WithRetryHook(func(r Retry) {
		if r.Try != 1 {
			t.Errorf("after a long stream the pause was number %d", r.Try)
		}
	}))
}

func TestWatchReadsUnusualStreams(t *testing.T) {
	t.Parallel()
	whole := eventStream(0, entries)
	event := func(seq int) string {
		return fmt.Sprintf("id: %d\nevent: output\ndata: {\"seq\":%d,\"kind\":\"text\",\"data\":\"x\"}\n\n", seq, seq)
	}
	tests := []struct {
		rule, first string
		conns       int // expected number of connections
	}{
		{"a repeated entry is delivered once", eventStream(0, 3)[:strings.Index(eventStream(0, 3), "id: 3\nevent: done")] + eventStream(1, entries), 1},
		{"the watch reconnects after a missing entry", event(1) + event(3), 2},
		{"the watch reconnects after a done event before the last entry", "event: done\ndata: {\"status\":\"succeeded\",\"cursor\":9}\n\n", 2},
		{"the watch reconnects after an entry that is not JSON", event(1) + "id: 2\nevent: output\ndata: {\"seq\":\n\n", 2},
		{"the watch reconnects after a job that is not JSON", "event: snapshot\ndata: <html>\n\n", 2},
		{"an event of an unknown type is ignored", "event: mood\ndata: good\n\n" + whole, 1},
		{"an event without data is ignored", "event: done\n\n" + whole, 1},
		{"lines may end with a carriage return and a line feed", strings.ReplaceAll(whole, "\n", "\r\n"), 1},
		{"the space after a colon may be missing", strings.ReplaceAll(whole, ": ", ":"), 1},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, n *network, c *Client) {
				conns := 0
				n.start(streamHandler(func(conn, after int) string {
					if conns = conn + 1; conn == 0 {
						return tt.first
					}
					return eventStream(after, entries)
				}))
				checkAllEntries(t, tt.rule, c, 0)
				if conns != tt.conns {
					t.Errorf("it took %d connections, want %d", conns, tt.conns)
				}
			})
		})
	}
}

func TestWatchSurvivesServerRestart(t *testing.T) {
	t.Parallel()
	var tries []int
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		half := eventStream(0, entries)[:300]
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte(half))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		time.AfterFunc(10*time.Second, n.kill)
		time.AfterFunc(time.Hour, func() {
			h, _ := script(problemHandler(503, "shutting_down", "1"), problemHandler(502, "", ""), streamHandler(func(_, after int) string { return eventStream(after, entries) }))
			n.start(h)
		})
		checkAllEntries(t, "restart", c, 0)
		if len(tries) < 3600/5 || len(tries) > 2*3600/5+20 {
			t.Errorf("the hour without a server took %d tries", len(tries))
		}
		if tries[0] != 1 {
			t.Errorf("the outage began with try %d", tries[0])
		}
	}, WithRetryHook(func(r Retry) { tries = append(tries, r.Try) }))
}

func TestWatchReconnectsSilentStream(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		comments := 10
		h, _ := script(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for range comments {
				_, _ = w.Write([]byte(": still here\n\n"))
				_ = http.NewResponseController(w).Flush()
				<-time.After(15 * time.Second)
			}
			<-r.Context().Done()
		}, streamHandler(func(_, after int) string { return eventStream(after, entries) }))
		n.start(h)
		start := time.Now()
		checkAllEntries(t, "silence", c, 0)
		if waited := time.Since(start).Truncate(time.Second); waited != 9*15*time.Second+streamTimeout {
			t.Errorf("a stream with a comment every 15 s was closed after %s", waited)
		}
	})
}

func TestWatchEndsWithError(t *testing.T) {
	t.Parallel()
	html := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }
	garbage := streamHandler(func(int, int) string { return "event: snapshot\ndata: <html>\n\n" })
	tests := []struct {
		rule  string
		h     http.HandlerFunc
		code  string
		tries int
	}{
		{"an unknown job ends the watch", problemHandler(404, CodeNotFound, ""), CodeNotFound, 1},
		{"an answer from another program ends the watch", html, CodeBadAnswer, 1},
		{"repeated invalid streams end the watch", garbage, CodeBadAnswer, 1 + maxBadStreams},
		{"a watch of a full server is retried a few times", problemHandler(503, CodeOverloaded, ""), CodeOverloaded, 4},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, n *network, c *Client) {
				h, tries := script(tt.h)
				n.start(h)
				_, _, err := watchToEnd(t.Context(), c, 0)
				wantCode(t, err, tt.code)
				if *tries != tt.tries {
					t.Errorf("%d tries, want %d", *tries, tt.tries)
				}
			})
		})
	}
}

func TestWatchEndsWithContext(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		gone := make(chan struct{})
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte(eventStream(0, entries)[:300]))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(gone)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, last, err := watchToEnd(ctx, c, 0)
		if !errors.Is(err, context.DeadlineExceeded) || CodeOf(err) != "" {
			t.Errorf("the error is %v", err)
		}
		if last.Cursor == 0 {
			t.Error("no event came before the end")
		}
		<-gone
	})
}

func TestBreakingWatchClosesConnection(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		gone := make(chan struct{})
		n.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte(eventStream(0, entries)[:300]))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(gone)
		}))
		for e, err := range c.Watch(t.Context(), "job_1", 0) {
			if err != nil || e.Type != SnapshotEvent || e.Job.ID != "job_1" {
				t.Errorf("the first event is %+v, the error %v", e, err)
			}
			break
		}
		<-gone
	})
}
