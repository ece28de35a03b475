package chat

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxQuery = 32 << 10 // bytes
	maxModel = 256      // bytes
	// maxQuestionBody is the longest JSON of a question: each byte may be written as \u00XX.
	maxQuestionBody = 6*(maxQuery+maxModel) + 4<<10
)

// question is a question of a client, over HTTP or a socket.
type question struct {
	Query          string `json:"query"`
	ConversationID string `json:"conversation_id"` // "": a new conversation; else its public id
	Model          string `json:"model"`           // "": the queue's first model
	trace          string `json:"-"`               // the traceparent of its job, or ""
}

// acceptedTask is the task of a question that is on disk.
type acceptedTask struct {
	engine.Snapshot
	conversation string // its public id
}

// busyError refuses a question to a conversation that is still answering another one.
type busyError struct {
	refusal *job.Error
	task    job.ID // the task of the other question
}

func (e *busyError) Error() string { return e.refusal.Error() }

func (e *busyError) Unwrap() error { return e.refusal }

func (a *API) postChat(w http.ResponseWriter, r *http.Request) error {
	var q question
	if err := api.ReadJSON(r, maxQuestionBody, &q); err != nil {
		return err
	}
	q.trace = api.Traceparent(r)
	key, err := api.IdempotencyKey(r.Header)
	if err != nil {
		return err
	}
	accepted, err := a.ask(r.Context(), gate.CallerFrom(r), q, key)
	if err != nil {
		return err
	}
	links := a.newLinks(r, &accepted.Job)
	w.Header().Set("Location", links.Status)
	api.WriteJSON(w, http.StatusAccepted, acceptedView{
		TaskID:         accepted.ID.String(),
		Status:         statusOf(conversation.StatusOf(accepted.State)),
		Outcome:        outcomeOf(conversation.StatusOf(accepted.State)),
		Estimate:       estimateSeconds(accepted.Snapshot),
		ConversationID: accepted.conversation,
		Position:       accepted.Position,
		URLs:           links,
	})
	return nil
}

// ask stores a question and its job. A question that comes again with the same idempotency
// key returns the job and the conversation of the first one.
func (a *API) ask(ctx context.Context, c *gate.Caller, q question, key string) (acceptedTask, error) {
	err := q.check()
	if err == nil {
		err = c.CheckKeyQueue(a.queue) // the queues of a user's token do not concern chats
	}
	if err != nil {
		return acceptedTask{}, err
	}
	// Other clients may begin a conversation of the same name, and end it, at the same time.
	const tries = 4
	for try := 1; ; try++ {
		accepted, beginAgain, err := a.tryAsk(ctx, c.Owner(), q, key)
		if !beginAgain || try == tries {
			return accepted, err
		}
	}
}

// tryAsk asks a question once. beginAgain means that it was refused only because another question
// took the name of its new conversation.
func (a *API) tryAsk(ctx context.Context, owner job.Owner, q question, key string) (accepted acceptedTask, beginAgain bool, err error) {
	turn, err := a.conversations.Begin(ctx, owner, q.ConversationID, q.Query)
	if err != nil {
		return acceptedTask{}, false, namedField(err)
	}
	task := job.NewID()
	snap, _, err := a.engine.Submit(ctx, engine.Request{
		ID: task, Owner: owner, Queue: a.queue, Key: owner.User,
		Input:          turn.Prompt(q.Model),
		IdempotencyKey: key, Hash: q.hash(owner),
		Rows: turn.Rows(task), Refs: turn.Refs(), Trace: q.trace,
	})
	if err != nil {
		code := job.CodeOf(err)
		return acceptedTask{}, turn.IsNew() && (code == job.Conflict || code == job.NotFound), askError(err, q)
	}
	return acceptedTask{snap, conversation.PublicIDOf(&snap.Job)}, false, nil
}

// namedField names the field of a conversation id that is no name.
func namedField(err error) error {
	if refused, ok := errors.AsType[*job.Error](err); ok && refused.Code == job.Invalid {
		return invalid("/conversation_id", "%s", refused.Message)
	}
	return err
}

// askError converts the error of a submit to the error of a question.
func askError(err error, q question) error {
	// Each conversation has a row that only one task at a time may insert.
	if c, ok := errors.AsType[*engine.RowConflict](err); ok {
		task, _ := conversation.TaskOf(c.Body)
		return &busyError{job.Errorf(job.Conflict, "the conversation is still answering %s: wait for it, or cancel it", task), task}
	}
	if job.CodeOf(err) == job.NotFound && q.ConversationID != "" {
		return job.Wrapf(job.NotFound, err, "there is no conversation %s", job.Quote(q.ConversationID))
	}
	return err
}

func (q question) check() error {
	switch {
	case strings.TrimSpace(q.Query) == "":
		return invalid("/query", "ask something: the query is empty")
	case len(q.Query) > maxQuery:
		return invalid("/query", "the query has %d bytes; at most %d are taken", len(q.Query), maxQuery)
	case len(q.Model) > maxModel:
		return invalid("/model", "the model's name has %d bytes; at most %d are taken", len(q.Model), maxModel)
	}
	return nil
}

// hash returns the hash of the question and its owner. Each text comes after its length, so
// that no two questions with different texts have the same hash.
func (q question) hash(owner job.Owner) (sum [32]byte) {
	h := sha256.New()
	for _, part := range []string{"chat", owner.Tenant, owner.User, q.Query, q.ConversationID, q.Model} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	h.Sum(sum[:0])
	return sum
}

func invalid(field, format string, args ...any) *job.Error {
	err := job.Errorf(job.Invalid, format, args...)
	err.Field = field
	return err
}
