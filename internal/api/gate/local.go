package gate

import (
	"net/http"
	"net/netip"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// LocalOnly refuses requests from other machines with [job.Forbidden]. It reads RemoteAddr,
// which [Gate.Handler] has set to the client that a trusted proxy names. A proxy that names
// no client must not forward these paths, because its requests seem local.
func LocalOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !peer.Addr().Unmap().IsLoopback() {
			api.WriteProblem(w, job.Errorf(job.Forbidden, "%s answers only programs on the server's own machine", job.Quote(r.URL.Path)))
			return
		}
		next.ServeHTTP(w, r)
	})
}
