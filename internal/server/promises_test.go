package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// promises are those of DESIGN.md that a second server could break, with three servers on one
// database. A number is that of the promise.
var promises = []struct {
	rule string
	test func(*replicas)
}{
	{"1: what one server has acknowledged, each of the others knows at once", acknowledgedJobIsKnownAtEachServer},
	{"2 and 8: a stream at any server has all that the job says, wherever it runs, and goes on at another server where it was cut", jobIsWatchedWhereItDoesNotRun},
	{"3: each job runs once, whichever server it was submitted to", eachJobRunsOnce},
	{"5: a cancel at any server reaches the work wherever it runs", cancelReachesWorkElsewhere},
	{"5: a delete is a cancel too, and the job is gone everywhere", deleteReachesWorkElsewhere},
	{"11: a pause at one server holds at all of them, and its end at another one frees all that wait", pauseHoldsAtEachServer},
	{"An idempotency key makes one job, also when all servers get it at once", idempotencyKeyMakesOneJobOverAllServers},
	{"9: lists, places in the line and owners are the same at each server", listsAndPlacesAreTheSameAtEachServer},
	{"A conversation goes on at any server", conversationGoesOnAtAnotherServer},
	{"A file of a job is at whichever server runs it", filesAreWhereTheJobRuns},
	{"A token of one server is valid at each", tokensAreValidAtEachServer},
	{"Each server counts the jobs of all", queuesAreTheSameAtEachServer},
	{"A job that failed at one server runs again when another one is asked to", failedJobIsRetriedAtAnotherServer},
}

func TestPromisesHoldWithThreeServers(t *testing.T) {
	t.Parallel()
	withReplicas(t, nil, func(r *replicas) {
		for _, p := range promises {
			r.Run(p.rule, func(t *testing.T) { p.test(r.in(t)) })
		}
	})
}

func acknowledgedJobIsKnownAtEachServer(r *replicas) {
	for at := range r.servers {
		id := r.submit(at, `,"delay_s":300`)
		for _, s := range r.servers {
			if status := s.jobStatus(id); status != "scheduled" {
				r.Errorf("submitted at %d: %q", at, status)
			}
		}
	}
}

func jobIsWatchedWhereItDoesNotRun(r *replicas) {
	id := r.submit(0, "")
	a := r.running(id)
	there, elsewhere := r.others(a.server)
	first, second := there.watch(id, ""), elsewhere.watch(id, "")
	a.say("one ")
	first.until("output", "one ")
	second.until("output", "one ")
	_ = first.body.Close()
	a.say("two ")
	resumed := elsewhere.watch(id, first.last)
	if data := resumed.until("output", ""); !strings.Contains(fmt.Sprint(data), "two ") {
		r.Errorf("the stream goes on with %v", data)
	}
	second.until("output", "two ")
	a.end()
	resumed.until("done", "succeeded")
	second.until("done", "succeeded")
}

func eachJobRunsOnce(r *replicas) {
	before := r.beginnings()
	var ids []string
	for i := range 12 {
		ids = append(ids, r.submit(i%3, ""))
	}
	used := map[int]bool{}
	for i, id := range ids {
		a := r.running(id)
		used[a.server] = true
		a.end()
		r.servers[(i+1)%3].ends(id, "succeeded")
	}
	if n := r.beginnings() - before; n != len(ids) {
		r.Errorf("%d attempts of %d jobs", n, len(ids))
	}
	if len(used) != 3 {
		r.Errorf("the servers %v run all jobs", used)
	}
}

func cancelReachesWorkElsewhere(r *replicas) {
	id := r.submit(0, "")
	a := r.running(id)
	there, elsewhere := r.others(a.server)
	stream := elsewhere.watch(id, "")
	if status, j := there.call("POST", "/v1/jobs/"+id+"/cancel", ""); status/100 != 2 {
		r.Fatal(status, j)
	}
	<-a.ctx.Done()
	if cause := context.Cause(a.ctx); cause != exec.ErrCancelled {
		r.Errorf("the work ended because of %v", cause)
	}
	stream.until("done", "cancelled")
	for _, s := range r.servers {
		s.ends(id, "cancelled")
	}
}

func deleteReachesWorkElsewhere(r *replicas) {
	id := r.submit(1, "")
	a := r.running(id)
	there, _ := r.others(a.server)
	if status, text := there.text("DELETE", "/v1/jobs/"+id, ""); status != 204 {
		r.Fatal(status, text)
	}
	<-a.ctx.Done()
	for _, s := range r.servers {
		if status, text := s.text("GET", "/v1/jobs/"+id, ""); status != 404 {
			r.Errorf("%d %s", status, text)
		}
	}
}

func pauseHoldsAtEachServer(r *replicas) {
	before := r.beginnings()
	if status, q := r.servers[0].call("POST", "/v1/queues/work/pause", ""); status != 200 {
		r.Fatal(status, q)
	}
	var ids []string
	for i := range 6 {
		ids = append(ids, r.submit(i%3, ""))
	}
	// More than a second, in which each server looks for work.
	if status, j := r.servers[1].call("GET", "/v1/jobs/"+ids[0], "", "Prefer", "wait=2"); j["status"] != "queued" || j["held_back_by"] != "paused" {
		r.Errorf("%d %v", status, j)
	}
	if n := r.beginnings() - before; n > 0 {
		r.Errorf("%d jobs run while their queue is paused", n)
	}
	for _, s := range r.servers {
		if status, q := s.call("GET", "/v1/queues/work", ""); status != 200 || q["paused"] != true || q["counts"].(map[string]any)["queued"] != 6.0 {
			r.Errorf("%d %v", status, q)
		}
	}
	if status, q := r.servers[2].call("POST", "/v1/queues/work/resume", ""); status != 200 {
		r.Fatal(status, q)
	}
	for _, id := range ids {
		r.running(id).end()
	}
}

func idempotencyKeyMakesOneJobOverAllServers(r *replicas) {
	var ids [9]string
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			_, j := r.servers[i%3].call("POST", "/v1/jobs", `{"queue":"work","input":{},"delay_s":300}`, "Idempotency-Key", "order-7")
			ids[i], _ = j["id"].(string)
		})
	}
	all.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			r.Errorf("the key made %v", ids)
			break
		}
	}
	if status, j := r.servers[2].call("POST", "/v1/jobs", `{"queue":"work","input":1}`, "Idempotency-Key", "order-7"); status != 422 {
		r.Errorf("another request with the key: %d %v", status, j)
	}
}

func listsAndPlacesAreTheSameAtEachServer(r *replicas) {
	if status, q := r.servers[1].call("POST", "/v1/queues/work/pause", ""); status != 200 {
		r.Fatal(status, q)
	}
	var ids []string
	for i := range 6 {
		ids = append(ids, r.submit(i%3, "", "X-User-ID", "ann"))
	}
	for _, s := range r.servers {
		for place, id := range ids {
			status, j := s.call("GET", "/v1/jobs/"+id, "", "X-User-ID", "ann")
			if status != 200 || j["queue_position"] != float64(place) {
				r.Errorf("%d, position %v of job %d", status, j["queue_position"], place)
			}
			if status, _ := s.call("GET", "/v1/jobs/"+id, "", "X-User-ID", "bob"); status != 404 {
				r.Errorf("another user's job: %d", status)
			}
		}
		_, list := s.call("GET", "/v1/jobs?limit=4", "", "X-User-ID", "ann")
		page := list["data"].([]any)
		if len(page) != 4 || page[0].(map[string]any)["id"] != ids[5] || page[3].(map[string]any)["id"] != ids[2] {
			r.Errorf("the list is %v", list)
		}
	}
	if status, q := r.servers[2].call("POST", "/v1/queues/work/resume", ""); status != 200 {
		r.Fatal(status, q)
	}
	for _, id := range ids {
		r.running(id).end()
	}
}

func conversationGoesOnAtAnotherServer(r *replicas) {
	for i := range 3 {
		status, task := r.servers[i].call("POST", "/api/chat", fmt.Sprintf(`{"query":"question %d","conversation_id":"talk"}`, i))
		if status != 202 {
			r.Fatal(status, task)
		}
		r.servers[(i+1)%3].ends(task["task_id"].(string), "succeeded")
	}
	for _, s := range r.servers {
		status, text := s.text("GET", "/api/conversations/talk/messages", "")
		if status != 200 {
			r.Fatal(status, text)
		}
		for i := range 3 {
			if !strings.Contains(text, fmt.Sprintf("question %d", i)) {
				r.Errorf("question %d is missing: %s", i, text)
			}
		}
	}
}

func filesAreWhereTheJobRuns(r *replicas) {
	for at, s := range r.servers {
		content := fmt.Sprintf("sent to %d", at)
		status, j := s.submitFiles(`{"queue":"work","input":{}}`, map[string]string{"page.txt": content})
		if status != 202 {
			r.Fatal(status, j)
		}
		id := j["id"].(string)
		a := r.running(id)
		text, err := os.ReadFile(a.task.Files[0].Path)
		if err != nil || string(text) != content {
			r.Errorf("sent to %d, run at %d: %q, %v", at, a.server, text, err)
		}
		there, _ := r.others(a.server)
		if status, got := there.text("GET", "/v1/jobs/"+id+"/files/page.txt", ""); status != 200 || got != content {
			r.Errorf("another server answers %d %q", status, got)
		}
		a.end()
		there.ends(id, "succeeded")
	}
}

func tokensAreValidAtEachServer(r *replicas) {
	users, _ := r.servers[0].mint("ann", `{}`)
	status, j := r.servers[1].call("POST", "/v1/jobs", `{"queue":"sim","input":{"echo":1}}`, "X-User-ID", "ann")
	if status != 202 {
		r.Fatal(status, j)
	}
	_, watch, _ := strings.Cut(j["urls"].(map[string]any)["watch"].(string), "token=")
	for _, token := range []string{users, watch} {
		for at, s := range r.servers {
			if status, text := s.text("GET", "/v1/jobs/"+j["id"].(string), "", "Authorization", "Bearer "+token); status != 200 {
				r.Errorf("at %d: %d %s", at, status, text)
			}
		}
	}
}

func queuesAreTheSameAtEachServer(r *replicas) {
	var ids []string
	for i := range 15 { // three more than there are slots
		ids = append(ids, r.submit(i%3, ""))
	}
	for running := 0; running < 12; {
		r.mu.Lock()
		running = len(r.attempts)
		changed := r.changed
		r.mu.Unlock()
		if running < 12 {
			<-changed
		}
	}
	for at, s := range r.servers {
		_, q := s.call("GET", "/v1/queues/work", "")
		counts := q["counts"].(map[string]any)
		for began := time.Now(); counts["running"] != 12.0 || counts["queued"] != 3.0; { // a second old at most
			if time.Since(began) > 10*time.Second {
				r.Fatalf("at %d: %v", at, q)
			}
			_, q = s.call("GET", "/v1/queues/work", "")
			counts = q["counts"].(map[string]any)
		}
	}
	for _, id := range ids {
		r.running(id).end()
	}
}

func failedJobIsRetriedAtAnotherServer(r *replicas) {
	id := r.submit(0, `,"max_attempts":1`)
	a := r.running(id)
	a.do(func(exec.Sink) error { return fmt.Errorf("broken") })
	there, elsewhere := r.others(a.server)
	there.ends(id, "failed")
	if status, j := elsewhere.call("POST", "/v1/jobs/"+id+"/retry", ""); status/100 != 2 {
		r.Fatal(status, j)
	}
	r.running(id).end()
	there.ends(id, "succeeded")
}

// The limits over all servers are exact.
func TestLimitsHoldOverAllServers(t *testing.T) {
	t.Parallel()
	withReplicas(t, func(_ *config.Config, q *config.Queue) {
		q.MaxRunning, q.PerKey.Running = 3, 1
	}, func(r *replicas) {
		ids := map[string]string{} // by key
		for i := range 4 {
			for at := range r.servers {
				key := fmt.Sprintf("key-%d", i)
				id := r.submit(at, `,"key":"`+key+`"`)
				ids[id] = key
			}
		}
		for len(ids) > 0 {
			r.mu.Lock()
			running, keys, next := 0, map[string]int{}, ""
			for id, key := range ids {
				if a := r.attempts[id]; a != nil {
					running++
					keys[key]++
					next = id
				}
			}
			changed := r.changed
			r.mu.Unlock()
			if running > 3 {
				t.Fatalf("%d jobs run, and max_running is 3", running)
			}
			for key, n := range keys {
				if n > 1 {
					t.Fatalf("%d jobs of %s run, and per_key.running is 1", n, key)
				}
			}
			if next == "" {
				select {
				case <-changed:
				case <-time.After(time.Minute):
					t.Fatalf("nothing runs, and %d jobs wait", len(ids))
				}
				continue
			}
			r.running(next).end()
			r.servers[len(ids)%3].ends(next, "succeeded")
			delete(ids, next)
		}
	})
}

// 6: a full queue refuses at each server.
func TestFullQueueRefusesAtEachServer(t *testing.T) {
	t.Parallel()
	withReplicas(t, func(_ *config.Config, q *config.Queue) { q.MaxDepth = 3 }, func(r *replicas) {
		if status, q := r.servers[0].call("POST", "/v1/queues/work/pause", ""); status != 200 {
			t.Fatal(status, q)
		}
		for at := range 3 {
			r.submit(at, "")
		}
		for at, s := range r.servers {
			// Counts of the others are hints: a process may admit one batch more.
			for tries := 0; ; tries++ {
				status, j := s.call("POST", "/v1/jobs", `{"queue":"work","input":{}}`)
				if status == 503 && j["code"] == "queue_full" {
					break
				}
				if status != 202 || tries > 100 {
					t.Fatalf("at %d: %d %v", at, status, j)
				}
			}
		}
		_, q := r.servers[0].call("GET", "/v1/queues/work", "")
		if queued := q["counts"].(map[string]any)["queued"].(float64); queued > 6 {
			t.Errorf("%v jobs wait, and max_depth is 3", queued)
		}
	})
}

// What a server was to do becomes another's when it stops in good order: a running job without a
// lost attempt, and a scheduled one at its time.
func TestStoppedServerLeavesItsJobsToTheOthers(t *testing.T) {
	t.Parallel()
	withReplicas(t, nil, func(r *replicas) {
		id := r.submit(0, "")
		a := r.running(id)
		stopped := r.servers[a.server]
		there, _ := r.others(a.server)
		later := r.submit(a.server, `,"delay_s":0.5`)
		stopped.quit()
		again := r.running(id)
		if again.server == a.server {
			t.Error("a stopped server runs the job")
		}
		again.end()
		there.ends(id, "succeeded")
		if _, j := there.call("GET", "/v1/jobs/"+id, ""); j["attempt"] != 1.0 {
			t.Errorf("the stop cost an attempt: %v", j["attempt"])
		}
		r.running(later).end()
		there.ends(later, "succeeded")
	})
}
