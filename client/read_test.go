package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWaitSurvivesRestarts(t *testing.T) {
	t.Parallel()
	outages := 0
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		waiting := make(chan struct{})
		h, _ := script(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Preference-Applied", "wait=60")
			_, _ = io.WriteString(w, `{"id":"job_1","status":"running"}`)
		}, func(_ http.ResponseWriter, r *http.Request) {
			close(waiting)
			<-r.Context().Done()
		})
		n.start(h)
		go func() {
			<-waiting
			n.kill()
			<-time.After(time.Hour)
			n.start(http.HandlerFunc(okJob))
		}()
		j, err := c.Wait(t.Context(), "job_1")
		if err != nil || j.Status != Succeeded {
			t.Fatalf("the job is %+v, the error %v", j, err)
		}
		if outages == 0 {
			t.Error("the retry hook was not called")
		}
	}, WithRetryHook(func(Retry) { outages++ }))
}

func TestWaitResetsBackoffAfterAnswer(t *testing.T) {
	t.Parallel()
	var tries []int
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		running := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"running"}`) }
		lost := problemHandler(502, "x", "")
		h, _ := script(running, lost, lost, running, lost, okJob)
		n.start(h)
		if _, err := c.Wait(t.Context(), "job_1"); err != nil {
			t.Fatal(err)
		}
		if want := []int{1, 2, 1}; !reflect.DeepEqual(tries, want) {
			t.Errorf("the tries were %v, want %v", tries, want)
		}
	}, WithRetryHook(func(r Retry) { tries = append(tries, r.Try) }))
}

func TestWaitGivesUpOnUnreachableServer(t *testing.T) {
	t.Parallel()
	tries := 0
	withNetwork(t, func(t *testing.T, _ *network, c *Client) {
		_, err := c.Wait(t.Context(), "job_1")
		wantCode(t, err, CodeUnreachable)
		if tries != 3 {
			t.Errorf("%d retries, want 3", tries)
		}
	}, WithRetryHook(func(Retry) { tries++ }))
}

func TestWaitPollsSlowlyWithoutLongPoll(t *testing.T) {
	t.Parallel()
	for rule, applied := range map[string]string{"without the header": "", "with the header but no wait": "wait=60"} {
		t.Run(rule, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, n *network, c *Client) {
				h, _ := script(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Preference-Applied", applied)
					_, _ = io.WriteString(w, `{"id":"job_1","status":"queued","poll_after_ms":1500}`)
				}, okJob)
				n.start(h)
				start := time.Now()
				if _, err := c.Wait(t.Context(), "job_1"); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(start); waited != 1500*time.Millisecond {
					t.Errorf("the next request came after %s", waited)
				}
			})
		})
	}
}

func TestWaitEndsWithRefusalOrContext(t *testing.T) {
	t.Parallel()
	withNetwork(t, func(t *testing.T, n *network, c *Client) {
		n.start(problemHandler(404, CodeNotFound, ""))
		_, err := c.Wait(t.Context(), "job_1")
		wantCode(t, err, CodeNotFound)

		n.kill()
		n.start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"queued"}`)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err = c.Wait(ctx, "job_1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestListFollowsAllPages(t *testing.T) {
	t.Parallel()
	pages := map[string]string{
		"":  `{"object":"list","data":[{"id":"job_5"},{"id":"job_4"}],"next":"4"}`,
		"4": `{"object":"list","data":[],"next":"3"}`,
		"3": `{"object":"list","data":[{"id":"job_2"}],"next":null}`,
	}
	var queries []string
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		_, _ = io.WriteString(w, pages[r.URL.Query().Get("after")])
	})
	empty := ""
	o := ListOptions{Filter: Filter{Queue: "a b", Status: Failed, Key: &empty}, Limit: 2}
	var ids []string
	for j, err := range c.List(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, j.ID)
	}
	if got := strings.Join(ids, " "); got != "job_5 job_4 job_2" {
		t.Errorf("listed %s", got)
	}
	if queries[0] != "key=&limit=2&queue=a+b&status=failed" {
		t.Errorf("the query is %s", queries[0])
	}
	queries = nil
	for range c.List(t.Context(), o) {
		break
	}
	if len(queries) != 1 {
		t.Errorf("%d pages were requested, want 1", len(queries))
	}
}

func TestListEndsWithError(t *testing.T) {
	t.Parallel()
	h, _ := script(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":[{"id":"job_1"}],"next":"x"}`)
	}, problemHandler(400, CodeInvalid, ""))
	var got []string
	for j, err := range newTestClient(t, h.ServeHTTP).List(t.Context(), ListOptions{}) {
		got = append(got, fmt.Sprint(j.ID, CodeOf(err)))
	}
	if want := []string{"job_1", CodeInvalid}; !reflect.DeepEqual(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

func TestReadCalls(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.RequestURI() {
		case "GET /v1/jobs/job_1/output?after=3":
			_, _ = io.WriteString(w, `{"job":{"id":"job_1","cursor":4},"data":[{"seq":4,"attempt":1,"kind":"text","data":"hi"}],"cursor":4}`)
		case "GET /v1/jobs/job_1/result":
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "done")
		case "DELETE /v1/jobs/job_1":
			w.WriteHeader(http.StatusNoContent)
		case "GET /v1/queues":
			_, _ = io.WriteString(w, `{"data":[{"name":"sim","counts":{"queued":2,"running":1}}]}`)
		case "GET /v1/queues/sim":
			_, _ = io.WriteString(w, `{"name":"sim","executor":"sim","totals":{"succeeded":7}}`)
		default:
			writeProblem(w, 404, CodeNotFound, "")
		}
	})
	ctx := t.Context()
	out, err := c.Output(ctx, "job_1", 3, time.Second)
	if err != nil || out.Cursor != 4 || out.Entries[0].Text() != "hi" || out.Job.Cursor != 4 {
		t.Errorf("the output is %+v, the error %v", out, err)
	}
	res, err := c.Result(ctx, "job_1")
	if err != nil || res.ContentType != "text/plain" || string(res.Body) != "done" {
		t.Errorf("the result is %+v, the error %v", res, err)
	}
	if err := c.Delete(ctx, "job_1"); err != nil {
		t.Error(err)
	}
	queues, err := c.Queues(ctx)
	if err != nil || len(queues) != 1 || queues[0].Counts.Unfinished() != 3 {
		t.Errorf("the queues are %+v, the error %v", queues, err)
	}
	q, err := c.Queue(ctx, "sim")
	if err != nil || q.Totals.Succeeded != 7 {
		t.Errorf("the queue is %+v, the error %v", q, err)
	}
	_, err = c.Get(ctx, "job_2")
	wantCode(t, err, CodeNotFound)
}

func TestEntryTextAndProgress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule string
		e    Entry
		text string
		p    Progress
	}{
		{"a text entry has text", Entry{Kind: KindText, Data: json.RawMessage(`"a\nb"`)}, "a\nb", Progress{}},
		{"a log line has text", Entry{Kind: KindLog, Data: json.RawMessage(`"a"`)}, "a", Progress{}},
		{"an event has neither text nor progress", Entry{Kind: KindJSON, Data: json.RawMessage(`"a"`)}, "", Progress{}},
		{"a progress entry has progress", Entry{Kind: KindProgress, Data: json.RawMessage(`{"percent":30,"status":"x"}`)}, "", Progress{30, "x"}},
		{"data of the wrong type gives an empty text", Entry{Kind: KindText, Data: json.RawMessage(`{}`)}, "", Progress{}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := tt.e.Text(); got != tt.text {
				t.Errorf("the text is %q, want %q", got, tt.text)
			}
			if got := tt.e.Progress(); got != tt.p {
				t.Errorf("the progress is %+v, want %+v", got, tt.p)
			}
		})
	}
}
