// Package chat is the face of the application that Meanwhile grew from: questions,
// conversations and their answers, over HTTP under /api and over one WebSocket at
// /ws. DESIGN §9 *Chat* says what each call does.
//
// A task is a job of one queue, whose executor takes a chat-completions body. The
// question is stored with its job and the answer with the job's end, so a page
// that is reloaded, or a socket that is lost, goes on where it was: every message
// on the wire carries the number of the last output entry that it tells of.
package chat

import (
	"context"
	"log/slog"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Engine is what the face needs of [engine.Engine]; the promises are written there.
type Engine interface {
	Submit(ctx context.Context, r engine.Request) (snap engine.Snapshot, existing bool, err error)
	Get(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	Output(ctx context.Context, owner job.Owner, id job.ID, after int64, wait time.Duration) (engine.Update, error)
	Cancel(ctx context.Context, owner job.Owner, id job.ID) (engine.Snapshot, error)
	DeleteJobs(ctx context.Context, owner job.Owner, ids []job.ID) error
	Watch(ctx context.Context, owner job.Owner, id job.ID, after int64) (*engine.Watch, error)
	MarkPresent(owner job.Owner)
}

// Config is what a face is made of.
type Config struct {
	Engine        Engine
	Conversations *conversation.Conversations
	Queue         string       // the queue that answers
	Log           *slog.Logger // nil for none
	Gate          *gate.Gate   // of its watch URLs; nil: none
	Trace         TraceFunc    // nil for nobody
	// Stopping is closed by whoever runs the server when it begins to stop: sockets
	// are told to reconnect, and no new one is taken.
	Stopping <-chan struct{}
}

// Face answers the chat calls.
type API struct {
	// set once
	engine        Engine
	conversations *conversation.Conversations
	queue         string
	log           *slog.Logger
	gate          *gate.Gate
	follow        TraceFunc
	sockets       stream.Sockets
}

// New makes a face.
func New(c Config) *API {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &API{
		engine: c.Engine, conversations: c.Conversations, queue: c.Queue, log: c.Log,
		gate: c.Gate, follow: c.Trace,
		sockets: stream.Sockets{Stopping: c.Stopping, Deadlines: stream.DefaultDeadlines, Log: c.Log},
	}
}

// Register adds the face's calls to a mux.
func (f *API) Register(mux api.Mux) {
	handle := func(pattern string, h api.Handler, params ...string) {
		mux.Handle(pattern, api.Wrap(f.log, writeError, onlyParams(params, h)))
	}
	handle("POST /api/chat", f.postChat)
	handle("GET /api/chat/status/{task}", f.getStatus)
	handle("POST /api/chat/cancel/{task}", f.postCancel)
	handle("GET /api/conversations", f.getConversations, "limit", "after")
	handle("POST /api/conversations", f.postConversation)
	handle("GET /api/conversations/{id}/messages", f.getMessages, "limit", "before")
	handle("DELETE /api/conversations/{id}", f.deleteConversation)
	handle("POST /api/heartbeat", f.postHeartbeat)
	handle("GET /ws", f.getSocket)
}

// Wait takes no new socket and returns when every one has been closed. Call it
// after Stopping was closed.
func (f *API) Wait() { f.sockets.Wait() }
