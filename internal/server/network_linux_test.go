package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// Three servers in processes and network namespaces of their own. Each has a link to the database and
// one to the others, which can be taken down: then every packet is lost, and no connection is told.

const (
	// networkVariable tells a process of a test what it is: "all" has the database and the links, and
	// a number is a server.
	networkVariable = "MEANWHILE_TEST_NETWORK"
	// darknessVariable is how long a server is cut off, with leases of their usual length; without it
	// the test takes seconds.
	darknessVariable = "MEANWHILE_TEST_DARKNESS"
	networkURL       = "MEANWHILE_TEST_NETWORK_DATABASE"
	networkPort      = 8080
)

// networked are the servers, as the process with the database sees them.
type networked struct {
	*testing.T
	servers [3]*networkedServer
	client  *http.Client
}

type networkedServer struct {
	host string // its address for requests
}

// inNetwork runs a test in a process with a network of its own, with three servers.
func inNetwork(t *testing.T, test func(*networked)) {
	if testing.Short() {
		t.Skip("waits for leases")
	}
	switch part := os.Getenv(networkVariable); part {
	case "":
		inOwnNetwork(t)
	case "all":
		test(startNetworked(t))
	default:
		serveInNetwork(t, part)
	}
}

// inOwnNetwork runs the test again in a new network namespace.
func inOwnNetwork(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Getuid() != 0 || !pgtest.Installed() {
		t.Skip("the test makes network namespaces: it needs root, ip (sudo apt-get install iproute2) and PostgreSQL")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), networkVariable+"=all")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	output, err := cmd.CombinedOutput()
	switch {
	case cmd.Process == nil || strings.Contains(string(output), "--- SKIP"):
		t.Skipf("no network can be made here: %v %s", err, output)
	case err != nil:
		t.Fatalf("%v\n%s", err, output)
	}
}

// ip runs a command of ip(8).
func (n *networked) ip(format string, args ...any) {
	n.Helper()
	line := fmt.Sprintf(format, args...)
	if said, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		n.Fatalf("ip %s: %v\n%s", line, err, said)
	}
}

// startNetworked starts a database, and three servers with their links. The addresses are those that
// documentation uses; they exist in these namespaces only.
func startNetworked(t *testing.T) *networked {
	dialer := &net.Dialer{Timeout: time.Second} // a link that is down answers nothing
	n := &networked{T: t, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}}
	if said, err := exec.Command("ip", "link", "add", "others", "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("no bridge can be made here: %v %s", err, said)
	}
	n.ip("link set lo up")
	n.ip("addr add 192.0.2.254/24 dev others")
	n.ip("link set others up")
	server := pgtest.Start(t, pgtest.Options{TCP: true, Settings: map[string]string{"listen_addresses": "*"}})
	n.allowAll(server)
	database := server.Schema(t)
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for i := range n.servers {
		n.start(i, database.NetworkURL(fmt.Sprintf("198.51.100.%d:%s", 4*i+1, port)))
	}
	for _, s := range n.servers {
		n.until(s, "/readyz", http.StatusOK)
	}
	return n
}

// allowAll lets the database accept connections from the links.
func (n *networked) allowAll(server *pgtest.Server) {
	n.Helper()
	f, err := os.OpenFile(filepath.Join(server.Dir(), "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("host all all samenet trust\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		n.Fatal(err)
	}
	server.Exec(n, "select pg_reload_conf()")
}

// start starts the process of a server, and makes its links.
func (n *networked) start(i int, url string) {
	n.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+n.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), networkVariable+"="+strconv.Itoa(i), networkURL+"="+url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	begin, err := cmd.StdinPipe() // it waits for its links
	if err != nil {
		n.Fatal(err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		n.Skipf("no network namespace can be made here: %v", err)
	}
	n.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if n.Failed() {
			n.Logf("the server %d said:\n%s", i, said.String())
		}
	})
	n.ip("link add d%d type veth peer name database netns %d", i, cmd.Process.Pid)
	n.ip("link add p%d type veth peer name others netns %d", i, cmd.Process.Pid)
	n.ip("addr add 198.51.100.%d/30 dev d%d", 4*i+1, i)
	n.ip("link set p%d master others", i)
	n.linkDatabase(i, "up")
	n.linkOthers(i, "up")
	n.servers[i] = &networkedServer{host: fmt.Sprintf("192.0.2.%d", i+1)}
	if _, err := io.WriteString(begin, "go\n"); err != nil {
		n.Fatal(err)
	}
}

func (n *networked) linkDatabase(i int, state string) { n.ip("link set d%d %s", i, state) }
func (n *networked) linkOthers(i int, state string)   { n.ip("link set p%d %s", i, state) }

// serveInNetwork is the process of a server. Its jobs of the queue "work" run until they are
// cancelled or their lease ends.
func serveInNetwork(t *testing.T, part string) {
	i, err := strconv.Atoi(part)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return
	}
	n := &networked{T: t}
	n.ip("link set lo up")
	n.ip("addr add 198.51.100.%d/30 dev database", 4*i+2)
	n.ip("addr add 192.0.2.%d/24 dev others", i+1)
	n.ip("link set database up")
	n.ip("link set others up")
	cfg := config.Default()
	cfg.Listen, cfg.Insecure, cfg.AllowedHosts = fmt.Sprintf("0.0.0.0:%d", networkPort), true, []string{"*"}
	cfg.Data, cfg.Database = t.TempDir(), os.Getenv(networkURL)
	q := cfg.Queues["sim"]
	q.Concurrency = 2
	if os.Getenv(darknessVariable) == "" {
		q.Timeouts.Lease = 2 * time.Second
	}
	cfg.Queues["sim"] = q
	if err := Run(context.Background(), cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		t.Fatal(err)
	}
}

// call sends a request to a server. The status is 0 without an answer.
func (n *networked) call(s *networkedServer, method, path, body string) (status int, answer map[string]any, header http.Header) {
	n.Helper()
	req, err := http.NewRequestWithContext(n.Context(), method, fmt.Sprintf("http://%s:%d%s", s.host, networkPort, path), strings.NewReader(body))
	if err != nil {
		n.Fatal(err)
	}
	res, err := n.client.Do(req)
	if err != nil {
		return 0, nil, nil
	}
	defer func() { _ = res.Body.Close() }()
	_ = json.NewDecoder(res.Body).Decode(&answer)
	return res.StatusCode, answer, res.Header
}

// until repeats a GET until it has a status.
func (n *networked) until(s *networkedServer, path string, want int) {
	n.Helper()
	n.await(fmt.Sprintf("%s of %s is %d", path, s.host, want), func() bool {
		status, _, _ := n.call(s, "GET", path, "")
		return status == want
	})
}

func (n *networked) await(what string, is func() bool) {
	n.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(2 * time.Minute); !is(); {
		select {
		case <-again.C:
		case <-deadline:
			n.Fatalf("it is not so after two minutes: %s", what)
		}
	}
}

// submit submits a job that runs until it is cancelled, at the server that it is submitted to.
func (n *networked) submit(s *networkedServer) (id string) {
	n.Helper()
	status, j, _ := n.call(s, "POST", "/v1/jobs", `{"queue":"sim","input":{"duration_ms":36000000}}`)
	if status != http.StatusAccepted || j["status"] != "running" {
		n.Fatal(status, j)
	}
	return j["id"].(string)
}

// runs reports whether a job runs in this attempt, as a server sees it.
func (n *networked) runs(s *networkedServer, id string, attempt float64) bool {
	n.Helper()
	status, j, _ := n.call(s, "GET", "/v1/jobs/"+id, "")
	return status == http.StatusOK && j["status"] == "running" && j["attempt"] == attempt
}

// A server that loses its database refuses submits, and its jobs run elsewhere when their leases have
// ended. When it is back it takes nobody's lease.
func TestServerThatWasCutOffFromDatabaseTakesNoLease(t *testing.T) {
	inNetwork(t, func(n *networked) {
		a, b, c := n.servers[0], n.servers[1], n.servers[2]
		lost, held, other := n.submit(a), n.submit(b), n.submit(c)
		dark, healthy := 6*time.Second, 6*time.Second // three leases
		if text := os.Getenv(darknessVariable); text != "" {
			var err error
			if dark, err = time.ParseDuration(text); err != nil {
				n.Fatal(err)
			}
			healthy = 25 * time.Second // more than two intervals of renewals
		}
		n.linkDatabase(0, "down")
		isOver := time.After(dark)
		n.await("the server without a database refuses submits", func() bool {
			status, _, header := n.call(a, "POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
			return status == http.StatusServiceUnavailable && header.Get("Retry-After") != ""
		})
		n.until(a, "/readyz", http.StatusServiceUnavailable)
		n.until(a, "/healthz", http.StatusOK)
		n.await("its job runs elsewhere", func() bool { return n.runs(b, lost, 2) })
		<-isOver
		n.linkDatabase(0, "up")
		n.until(a, "/readyz", http.StatusOK)
		n.await("it takes submits", func() bool {
			status, _, _ := n.call(a, "POST", "/v1/jobs", `{"queue":"sim","input":{}}`)
			return status == http.StatusAccepted
		})
		<-time.After(healthy) // its sweep has run
		if !n.runs(a, held, 1) || !n.runs(a, other, 1) || !n.runs(a, lost, 2) {
			n.Error("the server that is back has taken a lease of another")
		}
		for _, id := range []string{lost, held, other} {
			n.cancelAt(a, id)
		}
	})
}

// cancelAt cancels a job at a server, and waits until it has ended there.
func (n *networked) cancelAt(s *networkedServer, id string) {
	n.Helper()
	if status, j, _ := n.call(s, "POST", "/v1/jobs/"+id+"/cancel", ""); status != http.StatusOK && status != http.StatusAccepted {
		n.Error(status, j)
	}
	n.await("a job is cancelled", func() bool {
		_, j, _ := n.call(s, "GET", "/v1/jobs/"+id, "")
		return j["status"] == "cancelled"
	})
}

// Servers need each other for nothing: one that only reaches the database works with the others.
func TestServerThatWasCutOffFromOthersWorks(t *testing.T) {
	inNetwork(t, func(n *networked) {
		n.linkOthers(0, "down")
		if status, _, _ := n.call(n.servers[0], "GET", "/healthz", ""); status != 0 {
			n.Error("the link to the others still works")
		}
		n.servers[0].host = "198.51.100.2" // on its link to the database
		here, there := n.submit(n.servers[0]), n.submit(n.servers[1])
		n.await("a job of one side is seen at the other", func() bool { return n.runs(n.servers[2], here, 1) && n.runs(n.servers[0], there, 1) })
		<-time.After(6 * time.Second) // three leases
		if !n.runs(n.servers[1], here, 1) || !n.runs(n.servers[0], there, 1) {
			n.Error("a lease was taken")
		}
		n.cancelAt(n.servers[1], here)
		n.cancelAt(n.servers[0], there)
	})
}
