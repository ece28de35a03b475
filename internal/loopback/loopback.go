// Package loopback sends HTTP requests to a handler in the same process, without a socket. The
// embedded server and the simulated model use it.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Transport returns a transport whose requests go to h. A response arrives as the handler
// writes it, and each write waits until it is read. The handler's context ends when the
// request's context ends or the response's body is closed. Close of the body waits for the
// handler, so the handler must return when its context ends. The transport is safe for
// concurrent use.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	reader, writer := io.Pipe()
	w := &responseWriter{header: make(http.Header), pipe: writer, started: make(chan struct{})}
	c := &call{pipe: reader, cancel: cancel, done: make(chan struct{})}
	c.stopAfterFunc = context.AfterFunc(ctx, func() { reader.CloseWithError(ctx.Err()) })
	go func() {
		defer close(c.done)
		c.err = w.serve(t.handler, serverRequest(ctx, req))
	}()
	select {
	case <-w.started:
	case <-ctx.Done():
		_ = c.Close()
		return nil, ctx.Err()
	case <-c.done:
		if w.status == 0 {
			_ = c.Close()
			return nil, c.err
		}
	}
	return w.response(req, c), nil
}

// serverRequest returns the request as a server receives it.
func serverRequest(ctx context.Context, req *http.Request) *http.Request {
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

// call is one request in progress, and the body of its response.
type call struct {
	pipe          *io.PipeReader
	cancel        context.CancelFunc
	stopAfterFunc func() bool
	done          chan struct{} // closed when the handler has returned
	err           error         // why the response is incomplete; read after done
}

func (c *call) Read(p []byte) (int, error) { return c.pipe.Read(p) }

// Close ends the handler's context and waits for the handler.
func (c *call) Close() error {
	c.cancel()
	_ = c.pipe.CloseWithError(errClosed)
	<-c.done
	c.stopAfterFunc()
	return nil
}

var errClosed = errors.New("loopback: the response is closed")

// responseWriter is the handler's side of a call.
type responseWriter struct {
	pipe    *io.PipeWriter
	started chan struct{} // closed by the handler's first write, which fixes the header

	// owned by the handler until started
	header http.Header
	status int
	sent   http.Header
}

// serve runs the handler and then ends the body: with EOF, or with the error of a handler that
// panicked or was interrupted.
func (w *responseWriter) serve(h http.Handler, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("loopback: the handler aborted the response: %w", io.ErrUnexpectedEOF)
			if p != any(http.ErrAbortHandler) {
				err = fmt.Errorf("loopback: the handler panicked: %v", p)
			}
		} else {
			w.WriteHeader(http.StatusOK)
			err = r.Context().Err() // a handler whose context ended may not have written everything
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

// Flush sends the header. Writes are not buffered, so it has nothing else to send.
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
