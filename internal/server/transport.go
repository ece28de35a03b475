package server

import (
	"encoding/json"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

// Transport returns a transport for clients in this process, without a socket. The server
// treats them as programs on this machine, which need no key. After the server has stopped, requests get 410
// Gone with the error of Run, which clients do not retry.
func (s *Server) Transport() http.RoundTripper {
	return loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.done:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusGone)
			detail := "the server of this program has stopped"
			if s.err != nil {
				detail += ": " + s.err.Error()
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"code": "stopped", "detail": detail})
		default:
			s.components.embedded.ServeHTTP(w, gate.Vouch(r))
		}
	}))
}
