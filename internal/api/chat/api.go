// Package chat is the API of the chat application that Meanwhile grew from: questions,
// conversations and answers, over HTTP under /api and over one WebSocket at /ws. DESIGN §9
// *Chat* describes each call.
//
// A task is a job of one queue, whose executor accepts a chat-completions body. The question
// is stored with its job, and the answer with the job's end. Each message of an event carries
// the number of the last output entry that it includes. So a page that was reloaded, or a
// socket that was lost, can resume where it was.
package chat

import (
	"context"
	"log/slog"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Engine is the part of [engine.Engine] that the API calls. The methods are documented there.
type Engine interface {
	Submit(ctx context.Context, r engine.Request) (snap engine.Snapshot, existing bool, err error)
	Get(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	Output(ctx context.Context, owner job.Owner, id job.ID, after int64, wait time.Duration) (engine.Update, error)
	Wait(ctx context.Context, owner job.Owner, id job.ID, wait time.Duration) (engine.Snapshot, error)
	Cancel(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	DeleteJobs(ctx context.Context, owner job.Owner, ids []job.ID) error
	Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (*engine.Watch, error)
	MarkPresent(owner job.Owner)
}

// Config configures an [API].
type Config struct {
	Engine        Engine
	Conversations *conversation.Conversations
	Queue         string       // the queue of the tasks
	Log           *slog.Logger // nil: silent
	Gate          *gate.Gate   // makes watch URLs; nil: none
	Trace         TraceFunc    // traces questions over sockets; nil: no traces
	// Stopping is closed by the caller when the server begins to stop: clients are told to
	// reconnect, and new sockets are refused.
	Stopping <-chan struct{}
}

// API serves the chat routes.
type API struct {
	// set once
	engine        Engine
	conversations *conversation.Conversations
	queue         string
	log           *slog.Logger
	gate          *gate.Gate
	trace         TraceFunc
	sockets       stream.Sockets
	cancelHold    time.Duration // maxCancelHold outside of tests
}

// New returns an API.
func New(c Config) *API {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{
		engine: c.Engine, conversations: c.Conversations, queue: c.Queue, log: c.Log,
		gate: c.Gate, trace: c.Trace, cancelHold: maxCancelHold,
		sockets: stream.Sockets{Stopping: c.Stopping, Deadlines: stream.DefaultDeadlines, Log: c.Log, Caller: gate.BudgetOf},
	}
	if c.Gate != nil {
		a.sockets.Bodies = c.Gate.Bodies
	}
	return a
}

// Register adds the API's routes to a mux.
func (a *API) Register(mux gate.Routes) {
	handle := func(pattern string, need gate.Need, h api.Handler, params ...string) {
		mux.Handle(pattern, need, api.Wrap(a.log, writeError, onlyParams(params, h)))
	}
	submit, read := gate.Scope(access.Submit).UserToken(), gate.Scope(access.Read).UserToken()
	handle("POST /api/chat", submit, a.postChat)
	handle("GET /api/chat/status/{task}", read, a.getStatus)
	// The response has the answer so far.
	handle("POST /api/chat/cancel/{task}", gate.Scope(access.Cancel|access.Read).UserToken(), a.postCancel)
	handle("GET /api/conversations", read, a.getConversations, "limit", "after")
	handle("POST /api/conversations", submit, a.postConversation)
	handle("GET /api/conversations/{id}", read, a.getConversation, "limit", "before")
	handle("GET /api/conversations/{id}/messages", read, a.getMessages, "limit", "before")
	// With a token a user asks, watches, cancels and lists, and deletes nothing.
	handle("DELETE /api/conversations/{id}", gate.Scope(access.Operate), a.deleteConversation)
	handle("POST /api/heartbeat", read, a.postHeartbeat)
	handle("GET /ws", read, a.getSocket) // its messages are checked one by one
}

// Wait refuses new sockets and returns when all are closed. Call it after Stopping was
// closed.
func (a *API) Wait() { a.sockets.Wait() }
