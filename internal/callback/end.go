package callback

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// AtEnd returns the [store.AtEnd] of callbacks: the end of a job makes a delivery for each
// receiver that the job refers to. A retry makes none, and takes none back: an end that was
// stored has happened. The next end of the job has deliveries of its own. base is the public
// URL of the server, or "".
func AtEnd(base string) store.AtEnd {
	return func(end store.End) (f store.FollowUp) {
		if !end.Job.State.Ended() {
			return f
		}
		var event []byte // the same for all receivers
		for _, text := range end.Job.Refs {
			r, ok := parseReference(text)
			if !ok || !r.events.Has(end.Job.State) {
				continue
			}
			if event == nil {
				event = webhook.Event(&end.Job, end.Result, base)
			}
			d := webhook.Delivery{URL: r.url, Endpoint: r.endpoint, SecretID: r.secretID, Event: event}
			f.Jobs = append(f.Jobs, newDelivery(&end.Job, &d))
		}
		return f
	}
}

// newDelivery makes the job that delivers an end to a receiver. It is kept as long as the job
// that ended.
func newDelivery(ended *job.Job, d *webhook.Delivery) *store.Submit {
	input := d.Input()
	attempts, policy := webhook.Policy()
	policy.Keep = ended.Policy.Keep
	return &store.Submit{
		Job: job.Job{
			ID: deliveryID(ended, cmp.Or(d.Endpoint, d.URL)), Owner: ended.Owner, Queue: job.CallbackQueue,
			Key: d.Key(), Priority: job.DefaultPriority, MaxAttempts: attempts, Policy: policy,
			Metadata:   map[string]string{metadataJob: ended.ID.String(), metadataEvent: ended.State.Event()},
			InputBytes: int64(len(input)), Trace: ended.Trace,
		},
		Input: input,
	}
}

// The metadata of a delivery: the id of the ended job, and the event.
const (
	metadataJob   = "job"
	metadataEvent = "event"
)

// deliveryID is the id of the delivery of an end to a receiver: the time of the end, and a hash
// of the ended job, its revision and the receiver. So a transaction that is repeated makes the
// same job, and a later end of the same job another.
func deliveryID(ended *job.Job, receiver string) job.ID {
	text := make([]byte, 0, len(ended.ID)+8+len(receiver))
	text = append(text, ended.ID[:]...)
	text = binary.BigEndian.AppendUint64(text, uint64(ended.Revision))
	sum := sha256.Sum256(append(text, receiver...))
	id := job.ID(sum[:16])
	ms := uint64(ended.FinishedAt.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80 // the version and the variant of a UUID
	return id
}
