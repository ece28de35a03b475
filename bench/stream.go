package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// streamBuffer is how many bytes of a line are read. The rest of a longer line is skipped.
const streamBuffer = 4 << 10

// stream reads server-sent events over its own connection. It needs less memory and CPU
// than net/http, so that 10,000 streams are a load for the server and not for the bench.
type stream struct {
	conn                net.Conn
	lines               *bufio.Reader
	stopWatchingContext func() bool
}

// openStream sends a request and reads the header of the response. The stream ends when ctx
// ends.
func openStream(ctx context.Context, addr, request string) (*stream, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, stopWatchingContext: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if _, err := conn.Write([]byte(request)); err != nil {
		s.close()
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
	if err != nil {
		s.close()
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		s.close()
		return nil, fmt.Errorf("the answer to a request for events is %s", res.Status)
	}
	s.lines = bufio.NewReaderSize(res.Body, streamBuffer)
	return s, nil
}

// getRequest returns an HTTP/1.1 request for the events at a path.
func getRequest(addr, path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAccept: text/event-stream\r\n\r\n"
}

// postRequest returns an HTTP/1.1 request with a body, for a stream.
func postRequest(addr, path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, addr, len(body), body)
}

// next returns the next event and its data. The data is valid until the next call.
func (s *stream) next() (event string, data []byte, err error) {
	for {
		line, err := s.line()
		if err != nil {
			return "", nil, err
		}
		if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			event = string(name)
		}
		if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			return event, data, nil
		}
	}
}

func (s *stream) line() ([]byte, error) {
	line, err := s.lines.ReadSlice('\n')
	// Skip the rest of the line. A small buffer keeps 10,000 streams cheap.
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = s.lines.ReadSlice('\n')
		}
	}
	return bytes.TrimSuffix(line, []byte("\n")), err
}

// readUntil reads up to the first event with this name.
func (s *stream) readUntil(name string) error {
	for {
		event, _, err := s.next()
		if err != nil || event == name {
			return err
		}
	}
}

func (s *stream) close() {
	s.stopWatchingContext()
	_ = s.conn.Close()
}

// host returns the host and port of an http URL.
func host(url string) string { return strings.TrimPrefix(url, "http://") }
