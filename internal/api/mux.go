package api

import "net/http"

// Mux is where faces register what they answer: a [http.ServeMux], or a test that
// asks what there is.
type Mux interface {
	Handle(pattern string, handler http.Handler)
}
