package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// floodSize returns the number of connections of the largest flood: MEANWHILE_FLOOD, or
// 2,000. Both ends are in this process, so each connection takes two files.
func floodSize(t *testing.T) int {
	t.Helper()
	n := 2000
	if text := os.Getenv("MEANWHILE_FLOOD"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("MEANWHILE_FLOOD is a number of connections, not %q", text)
		}
	}
	const others = 500 // files
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(2*n + others); limit.Cur < need {
		raised := syscall.Rlimit{Cur: need, Max: max(limit.Max, need)}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
			n = (int(limit.Cur) - others) / 2
			t.Logf("%d connections, because this process may have %d files open", n, limit.Cur)
		} else {
			t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
		}
	}
	return n
}

// dialAll opens n connections to the server and writes a text on each.
func (s *testServer) dialAll(n int, text string) []net.Conn {
	s.t.Helper()
	all := make([]net.Conn, n)
	for i := range all {
		conn, err := net.Dial("tcp", s.components.listener.Addr().String())
		if err == nil {
			_, err = io.WriteString(conn, text)
		}
		if err != nil {
			s.t.Fatalf("connection %d: %v", i, err)
		}
		s.t.Cleanup(func() { _ = conn.Close() })
		all[i] = conn
	}
	return all
}

// stillWorks submits a job and reads its end.
func (s *testServer) stillWorks(when string) {
	s.t.Helper()
	http.DefaultClient.CloseIdleConnections() // the next request needs a new connection
	if status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"tokens":2}}`, "Prefer", "wait=60"); status != 200 || j["status"] != "succeeded" {
		s.t.Errorf("%s: %d %v", when, status, j)
	}
}

// Connections that never finish a request's header are closed after a timeout, and other
// clients are served meanwhile. MEANWHILE_FLOOD=10000 is the full number.
func TestFloodOfHalfOpenConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the header timeout of 10 s")
	}
	t.Parallel()
	s := serve(t, nil)
	n := floodSize(t)
	open := append(s.dialAll(n/2, ""), s.dialAll(n-n/2, "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Half: ")...)
	s.stillWorks("while they are open")
	for i, conn := range open {
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer)+"HTTP/1.1 4", "HTTP/1.1 4") {
			t.Fatalf("connection %d ends with %q, %v", i, answer, err)
		}
	}
	s.stillWorks("after")
}

// A header over the limit is refused before it is read into memory.
func TestFloodOfHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("it sends 8 MB on each of 100 connections")
	}
	t.Parallel()
	s := serve(t, nil)
	line := "X-Flood: " + strings.Repeat("x", 1000) + "\r\n"
	var all sync.WaitGroup
	for i, conn := range s.dialAll(100, "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n") {
		all.Go(func() {
			refused := make(chan string, 1)
			go func() {
				status, _ := bufio.NewReader(conn).ReadString('\n')
				refused <- status
			}()
			sent := 0
			for _, err := io.WriteString(conn, line); err == nil && sent < 8<<20; _, err = io.WriteString(conn, line) {
				sent += len(line)
			}
			// A client that continues to send may lose the answer, because a reset follows it.
			if status := <-refused; status != "" && !strings.Contains(status, " 431 ") || sent >= 8<<20 {
				t.Errorf("connection %d: %q after %d bytes", i, status, sent)
			}
		})
	}
	s.stillWorks("while they send")
	all.Wait()
	one := s.dialAll(1, "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"+strings.Repeat(line, 40)+"\r\n")[0]
	if status, err := bufio.NewReader(one).ReadString('\n'); err != nil || !strings.Contains(status, " 431 ") {
		t.Errorf("answered with %q, %v", status, err)
	}
}

// Bodies that arrive slowly or never do not block other requests, and an incomplete body is
// not stored. The test runs alone, because it measures the memory of the whole process.
func TestFloodOfSlowUploads(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for an upload to time out")
	}
	s := serve(t, nil)
	head := "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-User-ID: slow\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
	before := heap()
	open := s.dialAll(500, head+`{"queue":"sim",`)
	s.stillWorks("while they come")
	if grown := heap() - before; grown > int64(len(open))*256<<10 {
		t.Errorf("%d bodies that were not sent take %d bytes", len(open), grown)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	if _, list := s.call("GET", "/v1/jobs", "", "X-User-ID", "slow"); len(list["data"].([]any)) != 0 {
		t.Errorf("stored: %v", list)
	}
}

// Bodies that stop before their end take no more memory than the budget, however many they
// are, and whatever their callers' names. Others are served meanwhile. The test runs alone,
// too.
func TestFloodOfUnfinishedBodies(t *testing.T) {
	if testing.Short() {
		t.Skip("it sends 90 MB")
	}
	const budget, caller, sent = 16 << 20, 4 << 20, 900_000
	s := serve(t, func(c *config.Config) { c.Bodies = config.Bodies{MaxBytes: budget, CallerBytes: caller} })
	before := heap()
	refused := map[string]int{}
	for i := range 100 {
		user := "ann"
		if i >= 50 {
			user = fmt.Sprint("user-", i)
		}
		conn := s.dialAll(1, fmt.Sprintf("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-User-ID: %s\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n", user))[0]
		// A refused client may meet a closed connection while it still sends.
		_, _ = io.WriteString(conn, strings.Repeat(" ", sent))
		if n, _ := s.components.gate.Bodies.InFlight(); n > budget {
			t.Fatalf("%d bytes are in flight", n)
		}
	}
	s.stillWorks("while they wait")
	if grown := heap() - before; grown > 3*budget {
		t.Errorf("the bodies take %d bytes", grown)
	}
	_, text := s.text("GET", "/metrics", "")
	for _, status := range []string{"4xx", "5xx"} {
		_, rest, _ := strings.Cut(text, `meanwhile_http_requests_total{method="POST",route="/v1/jobs",status="`+status+`"} `)
		line, _, _ := strings.Cut(rest, "\n")
		refused[status], _ = strconv.Atoi(line)
	}
	if refused["4xx"] < 40 || refused["5xx"] < 10 {
		t.Errorf("refused are %v", refused)
	}
}

// heap is how much memory is in use, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// Clients that do not read the long log of a job take little memory, and do not slow down
// other clients. The test runs alone, too.
func TestFloodOfSlowReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills the buffers of many connections")
	}
	s := serve(t, func(c *config.Config) {
		q := config.Defaults(config.Process)
		q.Process.Command = []string{"sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' x | fold -w 1000"}
		q.Process.Env = []string{"PATH"}
		c.Queues["talk"] = q
	})
	_, j := s.call("POST", "/v1/jobs", `{"queue":"talk","input":1}`)
	id, _ := j["id"].(string)
	const n = 200
	before := heap()
	open := s.dialAll(n, "GET /v1/jobs/"+id+"/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	s.stillWorks("while they do not read")
	if status, text := s.text("GET", "/v1/jobs/"+id+"/events", ""); status != 200 || !strings.Contains(text, "event: done") || len(text) < 8_000_000 {
		t.Errorf("who reads: %d, %d bytes", status, len(text))
	}
	if grown := heap() - before; grown > int64(n)*1<<20 {
		t.Errorf("%d readers take %d bytes", n, grown)
	}
	if err := readSome(open[0]); err != nil {
		t.Errorf("one that begins to read: %v", err)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	s.stillWorks("after")
}

// readSome reads the beginning of a stream.
func readSome(conn net.Conn) error {
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("no event: %w", err)
		}
		if strings.HasPrefix(line, "event: output") {
			return nil
		}
		if strings.HasPrefix(line, "event: done") {
			return errors.New("done without output")
		}
	}
}
