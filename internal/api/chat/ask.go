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
	// maxAsk is a question at its longest: each byte may be written as \u00XX.
	maxAsk = 6*(maxQuery+maxModel) + 4<<10
)

// question is what a client asks, by HTTP or over a socket.
type question struct {
	Query          string `json:"query"`
	ConversationID string `json:"conversation_id"` // "" begins one
	Model          string `json:"model"`           // "" for the queue's first
	trace          string `json:"-"`               // what its job is a child of, a traceparent or ""
}

// asked is a question that is on disk.
type asked struct {
	engine.Snapshot
	conversation conversation.ID
}

// busy is the refusal of a question to a conversation that is still answering.
type busy struct {
	refusal *job.Error
	task    job.ID // which it is answering
}

func (b *busy) Error() string { return b.refusal.Error() }

func (b *busy) Unwrap() error { return b.refusal }

func (f *API) postChat(w http.ResponseWriter, r *http.Request) error {
	var q question
	if err := api.ReadJSON(r, maxAsk, &q); err != nil {
		return err
	}
	q.trace = api.Traceparent(r)
	key, err := api.IdempotencyKey(r.Header)
	if err != nil {
		return err
	}
	a, err := f.ask(r.Context(), gate.Owner(r), q, key)
	if err != nil {
		return err
	}
	links := f.linksOf(r, &a.Job)
	w.Header().Set("Location", links.Status)
	api.WriteJSON(w, http.StatusAccepted, acceptedView{
		TaskID:         a.ID.String(),
		Status:         conversation.StatusOf(a.State),
		Estimate:       estimate(a.Snapshot),
		ConversationID: a.conversation.String(),
		Position:       a.Position,
		URLs:           links,
	})
	return nil
}

// ask stores a question and its job. A key makes it apply once: the same question
// asked again with it is answered with the first one's job and conversation.
func (f *API) ask(ctx context.Context, owner job.Owner, q question, key string) (asked, error) {
	if err := q.check(); err != nil {
		return asked{}, err
	}
	var id conversation.ID
	if q.ConversationID != "" {
		var err error
		if id, err = conversation.ParseID(q.ConversationID); err != nil {
			return asked{}, err
		}
	}
	turn, err := f.conversations.Begin(ctx, owner, id, q.Query)
	if err != nil {
		return asked{}, err
	}
	task := job.NewID()
	snap, _, err := f.engine.Submit(ctx, engine.Request{
		ID: task, Owner: owner, Queue: f.queue, Key: owner.User,
		Input:          turn.Prompt(q.Model),
		IdempotencyKey: key, Hash: q.hash(owner),
		Rows: turn.Rows(task), Refs: []string{turn.Ref()}, Trace: q.trace,
	})
	if err != nil {
		return asked{}, refused(err, q)
	}
	answer, _ := conversation.AnswerIDOf(&snap.Job)
	return asked{snap, answer.Conversation}, nil
}

// refused says what a submit's refusal means to someone who asked a question.
func refused(err error, q question) error {
	if c, ok := errors.AsType[*engine.RowConflict](err); ok {
		task, _ := conversation.TaskOf(c.Body)
		return &busy{job.Errorf(job.Conflict, "the conversation is still answering %s: wait for it, or cancel it", task), task}
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

// hash is the hash of all that was asked, and by whom.
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
