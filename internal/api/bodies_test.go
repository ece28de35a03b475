package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// held returns what all callers hold.
func held(b *Bodies) int64 {
	n, _ := b.InFlight()
	return n
}

// What has arrived counts, not the declared length, and it is given back.
func TestAllowanceGrowsWithArrivedBytes(t *testing.T) {
	t.Parallel()
	b := NewBodies(1<<20, 1<<20)
	for _, tt := range []struct {
		arrives  int
		declared int64
		most     int64 // held when the body has stopped arriving
	}{
		{0, 1 << 20, 0},
		{freeRead, 1 << 20, freeRead},
		{100 << 10, 1 << 20, 200 << 10},
		{100 << 10, -1, 200 << 10},
		{300, 300, 0},
	} {
		a := b.NewAllowance(Caller{User: "ann"})
		stopped := errors.New("stopped")
		var most int64
		from := io.MultiReader(strings.NewReader(strings.Repeat("x", tt.arrives)), readerFunc(func([]byte) (int, error) { most = held(b); return 0, stopped }))
		_, err := a.ReadAll(from, tt.declared, 1<<20)
		if tt.declared != int64(tt.arrives) && !errors.Is(err, stopped) || most > tt.most {
			t.Errorf("%d of %d bytes: %d are held, %v", tt.arrives, tt.declared, most, err)
		}
		a.Release()
		if held(b) != 0 || len(b.callers) != 0 {
			t.Errorf("%d of %d bytes: %d stay held by %v", tt.arrives, tt.declared, held(b), b.callers)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// One caller is refused at its own bound, and leaves room for others; all are refused at
// the common bound.
func TestBodiesAreBoundedByCallerAndInAll(t *testing.T) {
	t.Parallel()
	b := NewBodies(100, 60)
	reserve := func(user string, n int64) (*Allowance, error) {
		a := b.NewAllowance(Caller{User: user})
		return &a, a.Reserve(n)
	}
	ann, err := reserve("ann", 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reserve("ann", 1); job.CodeOf(err) != CallerBusy || RetryAfter(err) != 1 || StatusOf(job.CodeOf(err)) != 429 {
		t.Errorf("past the bound of one: %v", err)
	}
	if _, err := reserve("bob", 40); err != nil {
		t.Errorf("another caller: %v", err)
	}
	if _, err := reserve("cid", 1); job.CodeOf(err) != job.Overloaded || RetryAfter(err) != 1 {
		t.Errorf("past the bound of all: %v", err)
	}
	ann.Release()
	if _, err := reserve("cid", 1); err != nil {
		t.Errorf("after one left: %v", err)
	}
}

// A request's body is refused when the budget is exhausted, and counts until its handler
// returns, also by a panic.
func TestRequestHoldsBodyUntilItsHandlerReturns(t *testing.T) {
	t.Parallel()
	b := NewBodies(100<<10, 64<<10)
	h := Timeouts{}.BoundBodies(b, Wrap(nil, WriteProblem, func(w http.ResponseWriter, r *http.Request) error {
		SetCaller(r, Caller{User: r.Header.Get("User")})
		body, err := ReadBody(r, 1<<20)
		if err == nil && len(body) > freeRead && held(b) == 0 {
			t.Errorf("%d bytes are read and none is held", len(body))
		}
		if r.Header.Get("Panic") != "" {
			panic("oops")
		}
		return err
	}))
	for _, size := range []int{0, 10, freeRead, freeRead + 1, 60 << 10, 70 << 10, 1 << 20} {
		for _, declared := range []bool{true, false} {
			for _, panics := range []string{"", "yes"} {
				r := httptest.NewRequest("POST", "/", iotest.HalfReader(strings.NewReader(strings.Repeat("x", size))))
				if r.ContentLength = -1; declared {
					r.ContentLength = int64(size)
				}
				r.Header.Set("User", "ann")
				r.Header.Set("Panic", panics)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				want := 200
				if panics != "" {
					want = 500
				} else if size > 68<<10 {
					want = 429
				}
				if w.Code != want || want == 429 && w.Header().Get("Retry-After") == "" {
					t.Errorf("%d bytes, declared %v: %d %s", size, declared, w.Code, w.Body)
				}
				if held(b) != 0 {
					t.Fatalf("%s: %d bytes stay held", fmt.Sprint(size, declared, panics), held(b))
				}
			}
		}
	}
}
