// Package loopback carries HTTP requests to a handler in the same process: the
// embedded server's own callers, and the simulated model.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Transport calls a handler as if it were a server elsewhere, without a socket.
// The response arrives as the handler writes it: a write waits until it is read.
// When the request's context ends, or the response's body is closed, the handler's
// context ends, and Close returns when the handler has; so the handler must return
// when its context ends. It may be used by many goroutines at once.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	reader, writer := io.Pipe()
	w := &responseWriter{header: make(http.Header), pipe: writer, started: make(chan struct{})}
	x := &exchange{pipe: reader, cancel: cancel, done: make(chan struct{})}
	x.unhook = context.AfterFunc(ctx, func() { reader.CloseWithError(ctx.Err()) })
	go func() {
		defer close(x.done)
		x.err = w.serve(t.handler, received(ctx, req))
	}()
	select {
	case <-w.started:
	case <-ctx.Done():
		_ = x.Close()
		return nil, ctx.Err()
	case <-x.done:
		if w.status == 0 {
			_ = x.Close()
			return nil, x.err
		}
	}
	return w.response(req, x), nil
}

// received is the request as a server would have it.
func received(ctx context.Context, req *http.Request) *http.Request {
	r := req.Clone(ctx)
	r.RequestURI = req.URL.RequestURI()
	r.RemoteAddr = "127.0.0.1:0"
	if r.Host == "" {
		r.Host = req.URL.Host
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	return r
}

// exchange is one request under way, and the body of its response.
type exchange struct {
	pipe   *io.PipeReader
	cancel context.CancelFunc
	unhook func() bool
	done   chan struct{} // closed when the handler has returned
	err    error         // why it broke off; read after done
}

func (x *exchange) Read(p []byte) (int, error) { return x.pipe.Read(p) }

// Close ends the handler's context and waits for it.
func (x *exchange) Close() error {
	x.cancel()
	_ = x.pipe.CloseWithError(errClosed)
	<-x.done
	x.unhook()
	return nil
}

var errClosed = errors.New("simmodel: the response is closed")

// responseWriter is the handler's side of an exchange.
type responseWriter struct {
	pipe    *io.PipeWriter
	started chan struct{} // closed by the handler's first write, after which the header stands

	// owned by the handler until started
	header http.Header
	status int
	sent   http.Header
}

// serve runs the handler, and ends the body as it ended.
func (w *responseWriter) serve(h http.Handler, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("simmodel: the handler broke off: %w", io.ErrUnexpectedEOF)
			if p != any(http.ErrAbortHandler) {
				err = fmt.Errorf("simmodel: the handler panicked: %v", p)
			}
		} else {
			w.WriteHeader(http.StatusOK)
			err = r.Context().Err() // a handler that stopped for this has not said all
		}
		w.pipe.CloseWithError(err)
		_ = r.Body.Close()
	}()
	h.ServeHTTP(w, r)
	return nil
}

func (w *responseWriter) Header() http.Header { return w.header }

func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status, w.sent = status, w.header.Clone()
	close(w.started)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

// Flush sends the header. There is nothing else to flush: writes are not held back.
func (w *responseWriter) Flush() { w.WriteHeader(http.StatusOK) }

func (w *responseWriter) response(req *http.Request, body io.ReadCloser) *http.Response {
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.sent,
		Body:          body,
		ContentLength: -1,
		Request:       req,
	}
}
