package server

import (
	"io"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/loopback"
)

// Transport carries the requests of callers in this process, without a socket. They
// count as a program on this machine. Once the server is gone they are told so, and not
// to try again.
func (s *Server) Transport() http.RoundTripper {
	return loopback.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.gone:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusGone)
			_, _ = io.WriteString(w, `{"code":"stopped","detail":"the server of this program has stopped"}`)
		default:
			s.house.door.ServeHTTP(w, r)
		}
	}))
}
