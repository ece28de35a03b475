package api

import (
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// unreadableBody fails the test when it is read.
type unreadableBody struct{ t *testing.T }

func (u unreadableBody) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestReadJSONRefusesLongBodyUnread(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/", unreadableBody{t})
	r.ContentLength = 101
	if err := ReadJSON(r, 100, new(everything)); job.CodeOf(err) != job.TooLarge {
		t.Error(err)
	}
}

// endlessBody never ends and counts the bytes that were read.
type endlessBody struct{ n int }

func (c *endlessBody) Read(p []byte) (int, error) {
	c.n += len(p)
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestReadJSONLimitsBodyWithoutLength(t *testing.T) {
	t.Parallel()
	body := new(endlessBody)
	r := httptest.NewRequest("POST", "/", body)
	r.ContentLength = -1
	if err := ReadJSON(r, 100<<10, new(everything)); job.CodeOf(err) != job.TooLarge {
		t.Error(err)
	}
	if body.n > 200<<10 {
		t.Errorf("%d bytes were read for a limit of 100 KiB", body.n)
	}
}

func TestReadBodyReadsUpToLimit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, freeRead - 1, freeRead, freeRead + 1, 3 * freeRead} {
		for _, declared := range []bool{true, false} {
			text := strings.Repeat("x", size)
			r := httptest.NewRequest("POST", "/", strings.NewReader(text))
			if !declared {
				r.ContentLength = -1
			}
			got, err := ReadBody(r, int64(size))
			if err != nil || string(got) != text {
				t.Errorf("%d bytes, declared %v: %d bytes, %v", size, declared, len(got), err)
			}
		}
	}
}

func TestReadJSONRefusesIncompleteBody(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{20, freeRead + 20, -1} {
		broken := io.MultiReader(strings.NewReader(`{"s":"x`), &failingReader{})
		r := httptest.NewRequest("POST", "/", broken)
		r.ContentLength = length
		err := ReadJSON(r, 1<<20, new(everything))
		if job.CodeOf(err) != job.Invalid || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("length %d: %v", length, err)
		}
	}
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRequireJSONRefusesCompressedBody(t *testing.T) {
	t.Parallel()
	for packed, ok := range map[string]bool{"": true, "identity": true, "gzip": false, "br, gzip": false} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Content-Encoding", packed)
		err := RequireJSON(r)
		if (err == nil) != ok || err != nil && job.CodeOf(err) != UnsupportedMediaType {
			t.Errorf("%q: %v", packed, err)
		}
	}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header["Content-Encoding"] = []string{"identity", "gzip"}
	if err := RequireJSON(r); job.CodeOf(err) != UnsupportedMediaType {
		t.Errorf("in two headers: %v", err)
	}
}

func TestRequireJSONChecksContentType(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"":                                  true,
		"application/json":                  true,
		"Application/JSON; charset=utf-8":   true,
		"application/cloudevents+json":      true,
		"text/plain":                        false,
		"text/json":                         false,
		"multipart/form-data; boundary=x":   false,
		"application/x-www-form-urlencoded": false,
		";;":                                false,
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Content-Type", text)
		err := RequireJSON(r)
		if (err == nil) != ok || err != nil && job.CodeOf(err) != UnsupportedMediaType {
			t.Errorf("%q: %v", text, err)
		}
	}
}
