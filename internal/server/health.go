package server

import (
	"io"
	"net/http"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// phase is a state of a server's life.
type phase int32

const (
	starting phase = iota
	ready
	stopping
)

var phaseNames = [...]string{"starting", "ready", "stopping"}

// health serves probes. /healthz answers that the process is alive, /readyz whether it
// takes requests. Both answer any Host. A server whose disk is full is ready: reads, cancels and
// deletes still work, and deletes free space. Its answer says so. A server whose database is away
// is not ready: it can answer nothing.
type health struct {
	now atomic.Int32

	// set before the phase is ready
	hasSpace  func() bool // reports whether the disk has space for new work
	storeAway func() bool // reports whether the shared database is away; nil for a store of its own
}

const (
	readyButFull = "ready, but the disk is full: no new work is taken"
	databaseAway = "the database is away: no request is taken, and running work goes on"
)

func (h *health) set(p phase) { h.now.Store(int32(p)) }

func (h *health) register(mux gate.Routes) {
	mux.Handle("GET /healthz", gate.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, "alive")
	}))
	mux.Handle("GET /readyz", gate.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p := phase(h.now.Load())
		switch {
		case p != ready:
			respond(w, http.StatusServiceUnavailable, phaseNames[p])
		case h.storeAway != nil && h.storeAway():
			respond(w, http.StatusServiceUnavailable, databaseAway)
		case !h.hasSpace():
			respond(w, http.StatusOK, readyButFull)
		default:
			respond(w, http.StatusOK, phaseNames[p])
		}
	}))
}

func respond(w http.ResponseWriter, status int, word string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, word+"\n") // the client may have gone
}
