package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Delivery is the input of a delivery's job.
type Delivery struct {
	URL      string          `json:"url,omitempty"`       // that came with a submit; "" for that of the endpoint
	Endpoint string          `json:"endpoint,omitempty"`  // its id, or ""
	SecretID string          `json:"secret_id,omitempty"` // the id of the secret that signs; "" for the usual one
	Event    json.RawMessage `json:"event"`               // sent byte by byte
}

// Input returns the input of the delivery's job.
func (d *Delivery) Input() []byte { return encode(d) }

// parseDelivery returns the delivery of an input.
func parseDelivery(input []byte) (Delivery, *job.Error) {
	var d Delivery
	err := json.Unmarshal(input, &d)
	if err != nil || d.URL == "" && d.Endpoint == "" || len(d.Event) == 0 || d.Event[0] != '{' {
		return d, job.Errorf(job.Invalid, `the input of a delivery must be {"url" or "endpoint", "event"}, as the server makes it`)
	}
	return d, nil
}

// Key returns the key of the delivery's job: its endpoint, or else the origin of its URL. So
// destinations take turns, each has at most so many attempts at once as the queue allows a key,
// and a path with the id of a job in it is no destination of its own.
func (d *Delivery) Key() string {
	key := d.Endpoint
	if u, err := url.Parse(d.URL); key == "" && err == nil {
		key = u.Scheme + "://" + u.Host
	}
	if len(key) > job.MaxKey {
		sum := sha256.Sum256([]byte(key))
		key = hex.EncodeToString(sum[:])
	}
	return key
}

// Schedule is when a delivery is tried, each time after the one before failed.
var Schedule = [...]time.Duration{
	0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	scheduleJitter = 0.1                // of a wait, how much may be added
	waitAtMost     = 5 * 24 * time.Hour // since the first attempt, longer than the schedule takes
	runAtMost      = 2 * time.Minute    // of an attempt; its own timeout is shorter
)

// Policy returns how often a delivery may fail, and the policy of its job without [job.Policy.Keep].
func Policy() (maxAttempts int, p job.Policy) {
	for i, d := range p.Timeouts.All() {
		*d = job.Clocks[i].Default
	}
	p.Timeouts.RunHard = runAtMost
	p.Retry = job.Retry{Delays: Schedule[1:], For: waitAtMost, OnTimeout: true, AfterOutput: job.RestartAfterOutput}
	return len(Schedule), p
}
