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
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// upload sends a body of that size in pieces, a pause before each, to a call that
// reads it as an upload and answers how much came, an hour later.
func upload(t *testing.T, size, piece int, pause time.Duration) (status int, answer string, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.Handle("POST /", Wrap(nil, func(w http.ResponseWriter, r *http.Request) error {
			n, err := io.Copy(io.Discard, Upload(w, r))
			if err != nil {
				return err
			}
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
				return errors.New("the client is said to have left")
			}
			WriteJSON(w, 200, n)
			return nil
		}))
		ours, theirs := net.Pipe()
		l := single{make(chan net.Conn, 1)}
		l.conns <- theirs
		srv := &http.Server{Handler: BoundBodies(mux)}
		done, sent := make(chan struct{}), make(chan struct{})
		go func() { _ = srv.Serve(l); close(done) }()
		begun := time.Now()
		go func() {
			defer close(sent)
			_, err := io.WriteString(ours, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
			chunk := strings.Repeat("x", piece)
			for left := size; left > 0 && err == nil; left -= piece {
				<-time.After(pause)
				_, err = io.WriteString(ours, hexOf(piece)+"\r\n"+chunk+"\r\n")
			}
			if err == nil {
				_, _ = io.WriteString(ours, "0\r\n\r\n")
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(ours), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		status, answer, took = res.StatusCode, string(body), time.Since(begun)
		_ = ours.Close()
		_ = srv.Close()
		<-done
		<-sent
		synctest.Wait()
	})
	return status, answer, took
}

func hexOf(n int) string { return strconv.FormatInt(int64(n), 16) }

// An upload may take as long as it goes on, and its time is over with it.
func TestAnUploadThatGoesOnIsTaken(t *testing.T) {
	const size = 40 * leastUploaded
	status, answer, took := upload(t, size, leastUploaded, 20*time.Second)
	if status != 200 || answer != "1228800" || took < 40*20*time.Second+time.Hour {
		t.Errorf("%d %s after %v", status, answer, took)
	}
}

func TestAnUploadThatDripsIsRefused(t *testing.T) {
	status, answer, took := upload(t, 1<<20, 1000, 2*time.Second)
	if status != http.StatusRequestTimeout || !strings.Contains(answer, string(RequestTimeout)) || took > bodyWait+time.Second {
		t.Errorf("%d %s after %v", status, answer, took)
	}
}

// A body that breaks off says so, and its end is an end.
func TestTheEndOfAnUpload(t *testing.T) {
	r := &http.Request{Body: io.NopCloser(strings.NewReader("all"))}
	if body, err := io.ReadAll(Upload(nowhere{}, r)); err != nil || string(body) != "all" {
		t.Errorf("%q, %v", body, err)
	}
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("some"), cut{}))
	if _, err := io.ReadAll(Upload(nowhere{}, r)); job.CodeOf(err) != job.Invalid {
		t.Error(err)
	}
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// nowhere is an answer without a connection.
type nowhere struct{ http.ResponseWriter }
