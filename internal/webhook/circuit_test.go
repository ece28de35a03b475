package webhook

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// harness asks a circuit at times that it sets.
type harness struct {
	t   *testing.T
	all *circuits
	now time.Time
}

func newHarness(t *testing.T) *harness {
	return &harness{t: t, all: newCircuits(slog.New(slog.DiscardHandler)), now: time.Unix(1_700_000_000, 0)}
}

// begin returns a permit, and fails the test if there is none.
func (h *harness) begin(destination string) *permit {
	h.t.Helper()
	p, wait := h.all.begin(destination, h.now)
	if p == nil {
		h.t.Fatalf("an attempt to %s waits %v", destination, wait)
	}
	return p
}

// sentBack returns how long an attempt waits, and fails the test if it does not.
func (h *harness) sentBack(destination string) time.Duration {
	h.t.Helper()
	p, wait := h.all.begin(destination, h.now)
	if p != nil {
		h.t.Fatalf("an attempt to %s is allowed", destination)
	}
	return wait
}

func (h *harness) fail(destination string, times int) {
	h.t.Helper()
	for range times {
		h.begin(destination).end(&Outcome{Status: 500}, h.now)
	}
}

func TestCircuit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.fail("a", openAfter-1)
	h.begin("a").end(&Outcome{Status: 404}, h.now) // it works, though it refuses
	h.fail("a", openAfter)
	h.begin("b").end(&Outcome{OK: true, Status: 200}, h.now)
	for open := minOpen; open < 2*maxOpen; open *= 2 {
		wait := min(open, maxOpen)
		if got := h.sentBack("a"); got < wait || got > 2*wait+time.Second {
			t.Errorf("while it is open for %v an attempt waits %v", wait, got)
		}
		h.now = h.now.Add(wait - 1)
		h.sentBack("a")
		h.now = h.now.Add(1)
		probe := h.begin("a")
		h.sentBack("a") // one probe at a time
		probe.end(&Outcome{}, h.now)
		probe.release() // does nothing more
	}
	h.now = h.now.Add(maxOpen)
	h.begin("a").release() // it was stopped, and says nothing
	h.begin("a").end(&Outcome{OK: true, Status: 204}, h.now)
	h.begin("a").end(&Outcome{Status: 500}, h.now)
	h.begin("a")
	if len(h.all.failing) != 1 {
		t.Errorf("%d destinations are remembered", len(h.all.failing))
	}
}

// Attempts that began before the circuit opened do not keep it open for longer.
func TestCircuitWithManyAttemptsUnderWay(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var under []*permit
	for range 100 {
		under = append(under, h.begin("a"))
	}
	for _, p := range under {
		p.end(&Outcome{}, h.now)
	}
	h.now = h.now.Add(minOpen)
	h.begin("a")
}

// A receiver that says how long to wait is not asked before.
func TestReceiverClosesItsCircuit(t *testing.T) {
	t.Parallel()
	for asked, closed := range map[time.Duration]time.Duration{10 * time.Second: 10 * time.Second, 24 * time.Hour: maxAskedFor, time.Millisecond: minOpen} {
		h := newHarness(t)
		h.begin("a").end(&Outcome{Status: 429, RetryAfter: asked}, h.now)
		h.now = h.now.Add(closed - 1)
		h.sentBack("a")
		h.now = h.now.Add(1)
		h.begin("a")
	}
}

// Ten thousand deliveries that are sent back do not come back together.
func TestDeliveriesComeBackOneAfterAnother(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.fail("a", openAfter)
	inSecond := map[int]int{}
	for range 10_000 {
		inSecond[int(h.sentBack("a").Seconds())]++
	}
	for second, n := range inSecond {
		if n > 1000 {
			t.Errorf("%d come back in second %d", n, second)
		}
	}
	if len(inSecond) < 100 || len(inSecond) > 202 {
		t.Errorf("they come back within %d seconds", len(inSecond))
	}
}

func TestFewDestinationsAreRemembered(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for i := range 2 * maxCircuits {
		h.fail(fmt.Sprint(i), 1)
		h.now = h.now.Add(time.Second)
	}
	if n := len(h.all.failing); n > maxCircuits || n < 100 {
		t.Errorf("%d destinations are remembered", n)
	}
	h.fail("last", openAfter)
	h.sentBack("last")
}

// A tenant whose receivers are slow leaves slots to others.
func TestTenantSlots(t *testing.T) {
	t.Parallel()
	s := newTenantSlots(2)
	for i, tenant := range []string{"a", "a", "a", "b"} {
		if taken, want := s.take(tenant), i != 2; taken != want {
			t.Errorf("slot %d, of the tenant %s: %v, want two for each tenant", i, tenant, taken)
		}
	}
	s.release("a")
	s.release("b")
	if !s.take("a") || s.take("a") || len(s.taken) != 1 {
		t.Errorf("after a release the slots are %v", s.taken)
	}
	none := newTenantSlots(0)
	for range 2 {
		if !none.take("a") {
			t.Error("there is a limit")
		}
	}
}

// Ten thousand deliveries to a dead receiver hold no slot once its circuit is open, cost no
// attempt, and do not touch those to others.
func TestDeadReceiver(t *testing.T) {
	t.Parallel()
	e, _ := newExecutor(t, nil)
	var asked atomic.Int32
	dead := rawReceiver(t, func(net.Conn) { asked.Add(1) })
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer good.Close()
	for range openAfter {
		if f, _ := attempt(t, e, deliveryTo(dead)); f == nil || f.Code != codeDisconnected {
			t.Fatalf("%+v", f)
		}
	}
	sentBack := 0
	for range 10_000 {
		f, r := attempt(t, e, deliveryTo(dead+"/another?path=1"))
		if f == nil {
			t.Fatal("a delivery to a dead receiver has succeeded")
		}
		if f.Code == "circuit_open" && f.Class == job.Wait && f.RetryAfter >= time.Second && len(r.Entries) == 0 {
			sentBack++
		}
	}
	if f, _ := attempt(t, e, deliveryTo(good.URL)); f != nil {
		t.Errorf("a delivery to another receiver: %+v", f)
	}
	other := deliveryTo(dead)
	other.Job.Owner.Tenant = "another"
	if f, _ := attempt(t, e, other); f.Code != codeDisconnected {
		t.Errorf("the same receiver of another tenant: %+v", f)
	}
	if n := e.OpenCircuits(); n != 1 {
		t.Errorf("%d circuits are open", n)
	}
	// There is a probe after one second, then after two, four and so on: on a slow machine a few.
	if asked.Load() > 2*openAfter+20 || sentBack < 9_900 {
		t.Errorf("the receiver was asked %d times, and %d deliveries were sent back", asked.Load(), sentBack)
	}
}

// A slow tenant's further deliveries wait at no cost.
func TestSlowTenant(t *testing.T) {
	t.Parallel()
	e, _ := newExecutor(t, func(c *Config) { c.TenantSlots = 1 })
	arrived := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = readAll(t, r)
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	defer slow.Close()
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer good.Close()
	first := exectest.Start(t, e, deliveryTo(slow.URL))
	<-arrived
	if f, _ := attempt(t, e, deliveryTo(good.URL)); f == nil || f.Code != "tenant_busy" || f.Class != job.Wait {
		t.Errorf("%+v", f)
	}
	other := deliveryTo(good.URL)
	other.Job.Owner.Tenant = "another"
	if f, _ := attempt(t, e, other); f != nil {
		t.Errorf("another tenant: %+v", f)
	}
	first.Stop(exec.ErrStopping)
	_ = first.Wait()
	if f, _ := attempt(t, e, deliveryTo(good.URL)); f != nil {
		t.Errorf("afterwards: %+v", f)
	}
}
