package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

const (
	callbackConnections = 64
	pacedCallbacks      = 500 // jobs a second, for the delays
	deliveryTimeout     = time.Minute
)

// callbacks submits jobs with a callback as fast as its connections can, and counts the
// deliveries that a receiver in this process has verified.
func (o *Options) callbacks(ctx context.Context, f *Figure) error {
	o.Step(fmt.Sprintf("callbacks: %d connections, %s", callbackConnections, o.Duration))
	f.Clients, f.Client = callbackConnections, leanClientText
	f.How = "jobs from their submit to the verified delivery of their end; the latency is that of the acknowledged submit"
	return o.withReceiver(ctx, func(r *callbackReceiver, c *client.Client) error {
		defer debug.SetGCPercent(debug.SetGCPercent(loadGC))
		s, began := o.callbackSubmission(r), time.Now()
		out, err := runLoad(ctx, f.Clients, newBudget(o.MaxJobs, o.Duration), func(ctx context.Context) error {
			_, err := c.Submit(ctx, s)
			return err
		})
		if err != nil {
			return err
		}
		f.Jobs = len(out.samples)
		if err := r.await(ctx, f.Jobs); err != nil {
			return err
		}
		took := time.Since(began)
		f.Seconds, f.PerS, f.Latency = seconds(took), perSecond(f.Jobs, took), latencyOf(out.samples)
		f.goalMin("deliveries received and verified", f.PerS, 4000, "a second")
		return nil
	})
}

// callbackDelays submits jobs at a steady rate, and measures the time from the end of each to
// the arrival of its delivery.
func (o *Options) callbackDelays(ctx context.Context, f *Figure) error {
	o.Step(fmt.Sprintf("callbacks: %d jobs a second, %s", pacedCallbacks, o.Duration))
	f.How = fmt.Sprintf("the delay from the end of a job to the arrival of its delivery, at %d jobs a second", pacedCallbacks)
	return o.withReceiver(ctx, func(r *callbackReceiver, c *client.Client) error {
		s := o.callbackSubmission(r)
		var all sync.WaitGroup
		var mu sync.Mutex
		var failed error
		jobs := 0
		tick := time.NewTicker(time.Second / pacedCallbacks)
		defer tick.Stop()
		for end := time.Now().Add(o.Duration); time.Now().Before(end) && ctx.Err() == nil; {
			<-tick.C
			jobs++
			all.Go(func() {
				if _, err := c.Submit(ctx, s); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if failed != nil {
			return failed
		}
		if err := r.await(ctx, jobs); err != nil {
			return err
		}
		l := f.spread("end to arrival", r.delaysNow())
		f.goalMax("delay, P50", l.P50, 5, "ms")
		f.goalMax("delay, P99", l.P99, 40, "ms")
		return nil
	})
}

func (o *Options) callbackSubmission(r *callbackReceiver) client.Submission {
	s := o.submission()
	s.Callback = &client.Callback{URL: r.url, SecretID: r.endpoint}
	return s
}

// withReceiver starts a server and a receiver that knows the secret of an endpoint.
func (o *Options) withReceiver(ctx context.Context, measure func(*callbackReceiver, *client.Client) error) error {
	t, err := o.startTarget(ctx, "")
	if err != nil {
		return err
	}
	defer t.close()
	r, err := newCallbackReceiver()
	if err != nil {
		return err
	}
	defer r.server.Close()
	if err := r.learnSecret(ctx, t.url); err != nil {
		return err
	}
	c, closeClient, err := dialLean(ctx, t.url)
	if err != nil {
		return err
	}
	defer closeClient()
	return measure(r, c)
}

// callbackReceiver receives deliveries and verifies their signatures.
type callbackReceiver struct {
	// set once
	server   *http.Server
	url      string
	endpoint string
	key      []byte

	mu sync.Mutex
	// guarded by mu
	seen    map[string]bool // by the id of the delivery
	delays  []time.Duration // from the end of the job
	invalid int
	want    int           // of seen
	reached chan struct{} // closed when there are as many; nil before await
}

func newCallbackReceiver() (*callbackReceiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &callbackReceiver{url: "http://" + l.Addr().String(), seen: map[string]bool{}}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: deliveryTimeout}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

// learnSecret makes an endpoint that gets no event, whose secret signs.
func (r *callbackReceiver) learnSecret(ctx context.Context, server string) error {
	settings := fmt.Sprintf(`{"name":"bench","url":%q,"event_types":["job.expired"]}`, r.url)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server+"/v1/webhook_endpoints", strings.NewReader(settings))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var e struct {
		ID     string `json:"id"`
		Secret string `json:"signing_secret"`
	}
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil {
		return fmt.Errorf("the endpoint: %s: %w", res.Status, err)
	}
	r.endpoint = e.ID
	r.key, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(e.Secret, "whsec_"))
	return err
}

func (r *callbackReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(req.Body)
	id := req.Header.Get("Webhook-Id")
	valid := err == nil && r.verify(id, req.Header.Get("Webhook-Timestamp"), req.Header.Get("Webhook-Signature"), body)
	ended := endOf(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !valid || ended.IsZero():
		r.invalid++
	case !r.seen[id]:
		r.seen[id] = true
		r.delays = append(r.delays, at.Sub(ended))
	}
	if r.reached != nil && len(r.seen) >= r.want {
		close(r.reached)
		r.reached = nil
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *callbackReceiver) verify(id, timestamp, signature string, body []byte) bool {
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return signature == "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// endOf returns when the job of an event has ended. Decoding the whole event would cost the
// machine more than the server's part.
func endOf(body []byte) time.Time {
	_, rest, _ := bytes.Cut(body, []byte(`"timestamp":"`))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	at, _ := time.Parse(time.RFC3339, string(text))
	return at
}

// await waits for this many deliveries.
func (r *callbackReceiver) await(ctx context.Context, n int) error {
	reached := make(chan struct{})
	r.mu.Lock()
	r.want, r.reached = n, reached
	if len(r.seen) >= n {
		close(reached)
		r.reached = nil
	}
	r.mu.Unlock()
	select {
	case <-reached:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(deliveryTimeout):
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) != n || r.invalid > 0 {
		return fmt.Errorf("%d jobs had %d verified deliveries, and %d could not be verified", n, len(r.seen), r.invalid)
	}
	return nil
}

func (r *callbackReceiver) delaysNow() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.delays)
}
