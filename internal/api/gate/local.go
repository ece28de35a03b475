package gate

import (
	"net/http"
	"net/netip"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Local lets only programs on this machine ask. A request that a trusted proxy passes
// on comes from where the proxy says; a proxy that does not say so should not pass
// such paths on at all.
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
