package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// uploadPlan describes how a client uploads a body in pieces.
type uploadPlan struct {
	size, piece int
	pause       time.Duration // of the client before each piece
	declared    bool          // with a Content-Length
	sync        time.Duration // time of the disk for each piece
}

// upload sends a body to a call that reads it as an Upload, writes it to a disk, and
// responds with the number of bytes an hour later.
func upload(t *testing.T, s uploadPlan) (status int, answer string, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.Handle("POST /", Wrap(nil, WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
			body := Timeouts{}.Upload(w, r)
			defer body.Close()
			n, err := io.CopyBuffer(slowDisk{s.sync}, body, make([]byte, s.piece))
			if err != nil {
				return err
			}
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
				return errors.New("the request's context ended")
			}
			WriteJSON(w, 200, n)
			return nil
		}))
		clientConn, serverConn := net.Pipe()
		l := singleConnListener{make(chan net.Conn, 1)}
		l.conns <- serverConn
		srv := &http.Server{Handler: Timeouts{}.BoundBodies(nil, mux)}
		done, sent := make(chan struct{}), make(chan struct{})
		go func() { _ = srv.Serve(l); close(done) }()
		began := time.Now()
		go func() {
			defer close(sent)
			head, before, after, last := "Transfer-Encoding: chunked", hexOf(s.piece)+"\r\n", "\r\n", "0\r\n\r\n"
			if s.declared {
				head, before, after, last = "Content-Length: "+strconv.Itoa(s.size), "", "", ""
			}
			_, err := io.WriteString(clientConn, "POST / HTTP/1.1\r\nHost: a\r\n"+head+"\r\n\r\n")
			piece := before + strings.Repeat("x", s.piece) + after
			for left := s.size; left > 0 && err == nil; left -= s.piece {
				<-time.After(s.pause)
				_, err = io.WriteString(clientConn, piece)
			}
			if err == nil {
				_, _ = io.WriteString(clientConn, last)
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(clientConn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		status, answer, took = res.StatusCode, string(body), time.Since(began)
		_ = clientConn.Close()
		_ = srv.Close()
		<-done
		<-sent
		<-time.After(time.Second) // by then net/http has left a client whose body it did not read
		synctest.Wait()
	})
	return status, answer, took
}

func hexOf(n int) string { return strconv.FormatInt(int64(n), 16) }

// slowDisk takes a fixed time for each write.
type slowDisk struct{ sync time.Duration }

func (d slowDisk) Write(p []byte) (int, error) {
	<-time.After(d.sync)
	return len(p), nil
}

// An upload may take any time as long as it arrives steadily. Its deadline does not
// outlive the body, even where the last bytes would extend it.
func TestSteadyUploadIsAccepted(t *testing.T) {
	t.Parallel()
	const size = 40 * minUploaded
	for _, declared := range []bool{true, false} {
		status, answer, took := upload(t, uploadPlan{size: size, piece: minUploaded, pause: 20 * time.Second, declared: declared})
		if status != 200 || answer != "1228800" || took < 40*20*time.Second+time.Hour {
			t.Errorf("%d %s after %v", status, answer, took)
		}
	}
}

// The time of the disk does not count.
func TestUploadOutlastsSlowDisk(t *testing.T) {
	t.Parallel()
	const size = 4 * minUploaded
	for _, declared := range []bool{true, false} {
		status, answer, took := upload(t, uploadPlan{size: size, piece: 1 << 10, declared: declared, sync: defaultTimeout + time.Second})
		if status != 200 || answer != "122880" || took < 120*defaultTimeout+time.Hour {
			t.Errorf("%d %s after %v", status, answer, took)
		}
	}
}

func TestStalledUploadIsRefused(t *testing.T) {
	t.Parallel()
	for _, declared := range []bool{true, false} {
		status, answer, took := upload(t, uploadPlan{size: 1 << 20, piece: 1000, pause: 2 * time.Second, declared: declared})
		if status != http.StatusRequestTimeout || !strings.Contains(answer, string(RequestTimeout)) || took > defaultTimeout+time.Second {
			t.Errorf("%d %s after %v", status, answer, took)
		}
	}
}

// No deadline is set after the end of the body: from then on net/http waits for the
// client to leave.
func TestEndedUploadSetsNoDeadline(t *testing.T) {
	t.Parallel()
	w := &deadlineCounter{}
	body := Timeouts{}.Upload(w, &http.Request{Body: io.NopCloser(iotest.DataErrReader(strings.NewReader(strings.Repeat("x", minUploaded))))})
	w.atEnd = func() bool { return body.err != nil }
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Fatal(err)
	}
	_, err := body.Read(make([]byte, 1))
	body.Close()
	if err != io.EOF || w.set == 0 || w.late > 0 {
		t.Errorf("%v; %d deadlines were set, %d after the end", err, w.set, w.late)
	}
}

func TestUploadWithoutBodySetsNoDeadline(t *testing.T) {
	t.Parallel()
	w := &deadlineCounter{atEnd: func() bool { return true }}
	body := Timeouts{}.Upload(w, &http.Request{Body: http.NoBody})
	n, err := body.Read(make([]byte, 1))
	if body.Close(); n != 0 || err != io.EOF || w.set > 0 {
		t.Errorf("%d, %v; %d deadlines were set", n, err, w.set)
	}
}

// deadlineCounter counts the read deadlines that are set.
type deadlineCounter struct {
	http.ResponseWriter
	atEnd     func() bool
	set, late int
}

func (d *deadlineCounter) SetReadDeadline(time.Time) error {
	if d.set++; d.atEnd() {
		d.late++
	}
	return nil
}

// The end of the body is io.EOF; an incomplete body is an error.
func TestUploadReportsEndOfBody(t *testing.T) {
	t.Parallel()
	r := &http.Request{Body: io.NopCloser(strings.NewReader("all"))}
	if body, err := io.ReadAll(Timeouts{}.Upload(noConnWriter{}, r)); err != nil || string(body) != "all" {
		t.Errorf("%q, %v", body, err)
	}
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("some"), cutReader{}))
	if _, err := io.ReadAll(Timeouts{}.Upload(noConnWriter{}, r)); job.CodeOf(err) != job.Invalid {
		t.Error(err)
	}
}

type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// noConnWriter is a response writer without a connection.
type noConnWriter struct{ http.ResponseWriter }
