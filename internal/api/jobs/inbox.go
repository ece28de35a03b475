package jobs

import (
	"crypto/sha256"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// InboxRow is a submit that a program has inserted into the inbox of the database.
type InboxRow struct {
	Owner       job.Owner
	Queue       string
	Body        []byte // the JSON of POST /v1/jobs without the queue
	Idempotency *string
}

// InboxRequest checks a row of the inbox as POST /v1/jobs checks its body, and converts it.
func (a *API) InboxRequest(row InboxRow) (engine.Request, error) {
	switch {
	case row.Owner.User == "" || !gate.ValidUser(row.Owner.User) || !gate.ValidUser(row.Owner.Tenant):
		return engine.Request{}, job.Errorf(job.Invalid, "usr and tenant have at most 128 bytes of printable characters, and usr has at least one")
	case row.Idempotency != nil && !api.ValidIdempotencyKey(*row.Idempotency):
		return engine.Request{}, job.Errorf(job.Invalid, "idempotency is null or 1 to %d printable ASCII characters", job.MaxKey)
	case int64(len(row.Body)) > a.maxBody:
		return engine.Request{}, job.Errorf(job.TooLarge, "the body has more than %d bytes", a.maxBody)
	}
	var s submission
	if err := api.DecodeJSON(row.Body, &s); err != nil {
		return engine.Request{}, err
	}
	switch {
	case s.Queue != "":
		return engine.Request{}, refuse("/queue", "the queue stands in the column queue")
	case s.IdempotencyKey != nil:
		return engine.Request{}, refuse("/idempotency_key", "the idempotency key stands in the column idempotency")
	}
	s.Queue = row.Queue
	req, err := a.newRequest(&s)
	req.Owner = row.Owner
	if row.Idempotency != nil {
		req.IdempotencyKey = *row.Idempotency
		all := sha256.New()
		fmt.Fprintf(all, "%q", row.Queue)
		all.Write(row.Body)
		all.Sum(req.Hash[:0])
	}
	return req, err
}
