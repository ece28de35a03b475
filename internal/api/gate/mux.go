package gate

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// Routes is where an API registers its routes: a [Mux], or a test that lists them.
type Routes interface {
	// Handle adds a route. need says who may use it; the zero Need panics.
	Handle(pattern string, need Need, h http.Handler)
}

// Mux has the routes behind a gate. No route can be added without a [Need], and no handler runs
// for a caller that does not meet it.
type Mux struct{ routes *http.ServeMux }

// NewMux returns a mux without routes.
func NewMux() *Mux { return &Mux{http.NewServeMux()} }

// Handle adds a route; see [Routes].
func (m *Mux) Handle(pattern string, need Need, h http.Handler) {
	if need.kind == undecided {
		panic("gate: nothing says who may use the route " + pattern)
	}
	m.routes.Handle(pattern, &route{h, need})
}

// route is a handler that only callers reach that meet a need.
type route struct {
	http.Handler
	need Need
}

func (rt *route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := rt.need.check(r, CallerFrom(r)); err != nil {
		rt.WriteError(w, err)
		return
	}
	rt.Handler.ServeHTTP(w, r)
}

// WriteError writes an error in the format of the handler's API.
func (rt *route) WriteError(w http.ResponseWriter, err error) {
	api.ErrorWriterOf(rt.Handler)(w, err)
}

// answersAnyHost reports whether the route of a request answers any Host.
func (m *Mux) answersAnyHost(r *http.Request) bool {
	h, _ := m.routes.Handler(r)
	rt, ok := h.(*route)
	return ok && rt.need.kind == anyone
}

// refuse writes an error in the format of the API that the request is for.
func (m *Mux) refuse(w http.ResponseWriter, r *http.Request, err error) {
	h, _ := m.routes.Handler(r)
	api.ErrorWriterOf(h)(w, err)
}
