package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/meanwhile-run/meanwhile/client"
)

// BenchmarkSubmit is what a submit costs the load, but for the sockets.
func BenchmarkSubmit(b *testing.B) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		r := bufio.NewReader(theirs)
		answer := []byte(fmt.Sprintf("HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nLocation: /v1/jobs/job_1\r\n"+
			"X-Request-Id: 0123456789abcdef\r\nVary: Prefer\r\nDate: Thu, 31 Jan 2030 09:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(floorJob), floorJob))
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if _, err := theirs.Write(answer); err != nil {
				return
			}
		}
	}()
	l := newLean("")
	l.give(&leanConn{Conn: ours, r: bufio.NewReaderSize(ours, 4<<10)})
	c, err := client.New("http://server.test", client.WithTransport(l), client.WithTimeout(0), client.WithRetries(0))
	if err != nil {
		b.Fatal(err)
	}
	o := Defaults()
	s := o.submission()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Submit(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}
