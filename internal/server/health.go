package server

import (
	"io"
	"net/http"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// phase is where a server stands in its life.
type phase int32

const (
	starting phase = iota
	ready
	stopping
)

var phaseNames = [...]string{"starting", "ready", "stopping"}

// health answers whoever watches over the process: /healthz says that it lives,
// /readyz whether it is to be sent requests. A server whose disk is full still is: what
// is read, cancelled and deleted makes room again. It says so.
type health struct {
	now  atomic.Int32
	room func() bool // whether new work has room; set before the server is ready
}

const readyButFull = "ready, but the disk is full: no new work is taken"

func (h *health) set(p phase) { h.now.Store(int32(p)) }

func (h *health) register(mux api.Mux) {
	mux.Handle("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, "alive")
	}))
	mux.Handle("GET /readyz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p, status := phase(h.now.Load()), http.StatusOK
		if p != ready {
			status = http.StatusServiceUnavailable
		}
		word := phaseNames[p]
		if p == ready && !h.room() {
			word = readyButFull
		}
		say(w, status, word)
	}))
}

func say(w http.ResponseWriter, status int, word string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, word+"\n") // whoever asked may be gone
}
