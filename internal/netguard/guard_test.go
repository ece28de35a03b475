package netguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// answers is a resolver that gives each answer once, and the last one again and again.
type answers struct {
	list  [][]string // of addresses; nil is an error
	asked atomic.Int32
}

var errNoHost = errors.New("lookup: no such host")

func (a *answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n := int(a.asked.Add(1))
	texts := a.list[min(n, len(a.list))-1]
	if texts == nil {
		return nil, errNoHost
	}
	var addrs []netip.Addr
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs, nil
}

// receiver is a server that counts what reaches it.
type receiver struct {
	*httptest.Server
	requests atomic.Int32
	port     string
}

func newReceiver(t *testing.T, handle http.HandlerFunc) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		if handle != nil {
			handle(w, req)
		}
	}))
	t.Cleanup(r.Close)
	_, r.port, _ = net.SplitHostPort(r.Listener.Addr().String())
	return r
}

// get asks a URL by way of the guard, and follows redirects.
func get(t *testing.T, g *Guard, url string) (string, error) {
	t.Helper()
	transport := g.Transport(1)
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(body)), err
}

// allowNames returns a list that allows plain HTTP to the names, as for a public host with TLS.
func allowNames(t *testing.T, items ...string) Allow {
	t.Helper()
	a, err := ParseAllow(items)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestNameThatResolvesInsideIsNotDialled(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	for name, answer := range map[string][]string{
		"loopback": {"127.0.0.1"}, "mapped": {"::ffff:127.0.0.1"}, "unspecified": {"0.0.0.0"}, "unspecified of IPv6": {"::"}, "private": {"10.0.0.1", "192.168.0.1"},
		"metadata": {"169.254.169.254"}, "translated": {"64:ff9b::7f00:1"}, "empty": {}, "an error": nil,
	} {
		// The network makes CheckURL let any name pass: the address decides.
		g := &Guard{Allow: allowNames(t, "203.0.113.0/24"), Resolver: &answers{list: [][]string{answer}}}
		_, err := get(t, g, "http://app.example.com:"+r.port)
		if codeOf(t, err) != NoAddress {
			t.Errorf("%s: %v", name, err)
		}
		var e *Error
		if errors.As(err, &e) && (strings.Contains(e.Message, "127.0.0.1") || !strings.Contains(e.Message, "callbacks.allow")) {
			t.Errorf("%s: %s", name, e.Message)
		}
	}
	if n := r.requests.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// Whether a name exists inside is nobody's business: the sentences are the same.
func TestRefusalsOfNamesAreAlike(t *testing.T) {
	t.Parallel()
	messages := map[string]bool{}
	for _, answer := range [][]string{{"127.0.0.1"}, {"10.0.0.1"}, {}, nil} {
		_, err := get(t, &Guard{Allow: allowNames(t, "203.0.113.0/24"), Resolver: &answers{list: [][]string{answer}}}, "http://db.internal:5432")
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		messages[string(e.Code)+e.Message] = true
	}
	if len(messages) != 1 {
		t.Errorf("the refusals differ: %v", messages)
	}
}

// A DNS server that answers with an allowed address first and another one later is asked once for
// each connection, and what it said is dialled.
func TestNameIsResolvedOnce(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	resolver := &answers{list: [][]string{{"127.0.0.1"}, {"169.254.169.254"}}}
	g := &Guard{Allow: allowNames(t, "127.0.0.1"), Resolver: resolver}
	if got, err := get(t, g, "http://app.example.com:"+r.port); err != nil || got != "200 " {
		t.Errorf("%s, %v", got, err)
	}
	if n := resolver.asked.Load(); n != 1 {
		t.Errorf("the name was resolved %d times for one connection", n)
	}
	if _, err := get(t, g, "http://app.example.com:"+r.port); codeOf(t, err) != NoAddress {
		t.Errorf("the second answer: %v", err)
	}
	if n := r.requests.Load(); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
}

// Of several addresses only the allowed ones are dialled, one after another.
func TestAllowedAddressesOfAName(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	g := &Guard{Allow: allowNames(t, "127.0.0.0/8"), Resolver: &answers{list: [][]string{{"10.0.0.1", "127.0.0.9", "127.0.0.1", "::1"}}}}
	if got, err := get(t, g, "http://app.example.com:"+r.port); err != nil || got != "200 " {
		t.Errorf("%s, %v", got, err)
	}
}

// The system's own word about the address counts, whatever was resolved before.
func TestAddressIsCheckedWhenItIsDialled(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	at := netip.MustParseAddrPort(r.Listener.Addr().String())
	if conn, err := new(Guard).dialOne(t.Context(), "tcp", "app.example.com", at, 1); err == nil {
		conn.Close()
		t.Error("a loopback address was dialled")
	}
	conn, err := (&Guard{Loopback: true}).dialOne(t.Context(), "tcp", "app.example.com", at, 1)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestLoopbackNames(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	// No resolver is asked for these names.
	local := &Guard{Loopback: true, Resolver: &answers{list: [][]string{{"10.0.0.1"}}}}
	for _, host := range []string{"localhost", "LocalHost.", "app.localhost", "127.0.0.1"} {
		if got, err := get(t, local, "http://"+host+":"+r.port); err != nil || got != "200 " {
			t.Errorf("%s: %s, %v", host, got, err)
		}
		if _, err := get(t, new(Guard), "https://"+host+":"+r.port); codeOf(t, err) != RefusedAddress {
			t.Errorf("without loopback %s: %v", host, err)
		}
	}
}

// A client that follows redirects is checked on each hop.
func TestEachHopIsChecked(t *testing.T) {
	t.Parallel()
	inside := newReceiver(t, nil)
	for name, target := range map[string]string{
		"metadata": "http://169.254.169.254/latest/meta-data/", "another port": inside.URL, "a name": "http://localhost:" + inside.port,
		"a user": "http://user@127.0.0.1:" + inside.port, "a file": "file:///etc/passwd",
	} {
		r := newReceiver(t, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, target, http.StatusTemporaryRedirect)
		})
		g := &Guard{Allow: allowNames(t, "127.0.0.1:"+r.port)}
		if got, err := get(t, g, r.URL); err == nil {
			t.Errorf("%s: the redirect was followed: %s", name, got)
		}
	}
	if n := inside.requests.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// What is in a URL besides its address is checked on each request, too.
func TestEachURLIsChecked(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	if _, err := get(t, &Guard{Loopback: true}, "http://user:secret@127.0.0.1:"+r.port); codeOf(t, err) != BadURL || r.requests.Load() != 0 {
		t.Errorf("%v, %d requests", err, r.requests.Load())
	}
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	proxy := newReceiver(t, nil)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	g := &Guard{Loopback: true, Resolver: &answers{list: [][]string{nil}}}
	for _, url := range []string{"https://app.example.com/", "http://app.localhost:1/"} {
		if _, err := get(t, g, url); err == nil {
			t.Errorf("%s was answered", url)
		}
	}
	if transport := g.Transport(1); transport.http.Proxy != nil || proxy.requests.Load() != 0 {
		t.Error("the proxy was asked")
	}
}

// A plain request is told from one with TLS when its address is dialled, too.
func TestTLSIsCheckedWhenItIsDialled(t *testing.T) {
	t.Parallel()
	g := &Guard{Allow: allowNames(t, "203.0.113.0/24"), Resolver: &answers{list: [][]string{{"93.184.216.34"}}}}
	if _, err := g.resolve(t.Context(), "app.example.com", 8443); codeOf(t, err) != NeedsHTTPS {
		t.Errorf("without TLS: %v", err)
	}
	ctx := context.WithValue(t.Context(), withTLS{}, true)
	if got, err := g.resolve(ctx, "app.example.com", 8443); err != nil || len(got) != 1 {
		t.Errorf("with TLS: %v, %v", got, err)
	}
	if _, err := g.resolve(ctx, "app.example.com", 25); codeOf(t, err) != RefusedPort {
		t.Errorf("at the port of mail: %v", err)
	}
}

func TestClosedPortIsUnreachable(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	r.Close()
	if _, err := get(t, &Guard{Loopback: true}, "http://127.0.0.1:"+r.port); codeOf(t, err) != Unreachable {
		t.Error(err)
	}
}
