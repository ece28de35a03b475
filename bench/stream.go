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

// streamBuffer is what of one line is read; the rest of a longer one is skipped.
const streamBuffer = 4 << 10

// stream reads server-sent events over a connection of its own. It is lighter than
// a client of net/http, so that ten thousand of them weigh on the server only.
type stream struct {
	conn   net.Conn
	lines  *bufio.Reader
	unhook func() bool
}

// openStream sends a request and reads the head of its answer. The stream ends
// with ctx.
func openStream(ctx context.Context, addr, request string) (*stream, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, unhook: context.AfterFunc(ctx, func() { _ = conn.Close() })}
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
		return nil, fmt.Errorf("a stream of events was asked for, the answer is %s", res.Status)
	}
	s.lines = bufio.NewReaderSize(res.Body, streamBuffer)
	return s, nil
}

// getRequest asks for the events at a path, in the bytes of HTTP/1.1.
func getRequest(addr, path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAccept: text/event-stream\r\n\r\n"
}

// postRequest asks for a stream with a body.
func postRequest(addr, path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, addr, len(body), body)
}

// next is the next event with its data, which stays as it is until the next call.
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
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = s.lines.ReadSlice('\n')
		}
	}
	return bytes.TrimSuffix(line, []byte("\n")), err
}

// readUntil reads to the first event of that name.
func (s *stream) readUntil(name string) error {
	for {
		event, _, err := s.next()
		if err != nil || event == name {
			return err
		}
	}
}

func (s *stream) close() {
	s.unhook()
	_ = s.conn.Close()
}

// host is the host and port of a plain URL.
func host(url string) string { return strings.TrimPrefix(url, "http://") }
