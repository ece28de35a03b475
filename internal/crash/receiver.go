package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/meanwhile-run/meanwhile/client"
)

// callbackQueue is the queue of the jobs that send callbacks.
const callbackQueue = "callbacks"

// receiver gets the callbacks of all jobs, and records them.
type receiver struct {
	server *http.Server
	url    string

	mu       sync.Mutex
	received map[string]map[string]int // requests, by job and then by delivery; guarded by mu
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{url: "http://" + l.Addr().String(), received: map[string]map[string]int{}}
	r.server = &http.Server{Handler: r}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var event struct{ Data struct{ ID string } }
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 1<<20)).Decode(&event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.received[event.Data.ID]
	if of == nil {
		of = map[string]int{}
		r.received[event.Data.ID] = of
	}
	of[req.Header.Get("Webhook-Id")]++
}

// verifyDeliveries compares the deliveries that the server has with the ends that the clients
// saw, and with what the receiver got: each end has one delivery, each delivery arrived, and
// nothing else did.
func (c *clients) verifyDeliveries(ctx context.Context) {
	deliveries := map[string][]client.Job{} // by the job that ended
	n := 0
	for j, err := range c.retrying.List(ctx, client.ListOptions{Filter: client.Filter{Queue: callbackQueue}, Limit: 100}) {
		if err != nil {
			c.rec.addViolation("the deliveries cannot be listed: %v", err)
			return
		}
		n++
		of := j.Metadata["job"]
		deliveries[of] = append(deliveries[of], j)
	}
	r := c.receiver
	r.mu.Lock()
	defer r.mu.Unlock()
	again := 0
	for _, k := range c.rec.jobsWhere(func(*jobRecord) bool { return true }) {
		got := deliveries[k.id]
		if len(got) < len(k.ends) || len(got) > 1+k.retries {
			c.rec.addViolation("%s was seen to end %d times, retried %d times, and has %d deliveries", k.id, len(k.ends), k.retries, len(got))
		}
		for i := range got {
			switch times := r.received[k.id][got[i].ID]; {
			case times == 0:
				c.rec.addViolation("the delivery %s of %s never arrived: it is %s", got[i].ID, k.id, got[i].Status)
			case times > 1:
				again++
			}
			delete(r.received[k.id], got[i].ID)
		}
		if left := r.received[k.id]; len(left) > 0 {
			c.rec.addViolation("the receiver got deliveries of %s that do not exist: %v", k.id, left)
		}
		delete(deliveries, k.id)
		delete(r.received, k.id)
	}
	for id := range deliveries {
		c.rec.addViolation("there is a delivery of %s, which was never submitted", id)
	}
	for id := range r.received {
		c.rec.addViolation("the receiver got a delivery of %s, which was never submitted", id)
	}
	fmt.Printf("%d deliveries were checked; %d of them arrived more than once\n", n, again)
}
