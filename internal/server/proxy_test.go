package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// nginx is an nginx with the configuration of docs/behind-a-proxy.md, on a free port.
type nginx struct {
	t      *testing.T
	dir    string
	client *http.Client // reaches it as https://jobs.example.com
}

// startNginx starts the documented nginx in front of a server.
func startNginx(t *testing.T, upstream string) *nginx {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // not in every user's PATH
		if _, err := os.Stat(path); err != nil {
			path = program(t, "nginx")
		}
	}
	n := &nginx{t: t, dir: t.TempDir()}
	roots := n.makeCertificate()
	n.write("users", "ann:{PLAIN}secret\n")
	addr := freeAddress(t)
	documented := n.documented()
	for from, to := range map[string]string{
		"server 127.0.0.1:8080;":        "server " + upstream + ";",
		"listen 443 ssl;":               "listen " + addr + " ssl;",
		"/etc/ssl/jobs.example.com.pem": n.path("cert.pem"),
		"/etc/ssl/jobs.example.com.key": n.path("key.pem"),
		"/var/log/nginx/jobs.log":       n.path("access.log"),
		"/etc/nginx/jobs.users":         n.path("users"),
	} {
		if !strings.Contains(documented, from) {
			t.Fatalf("docs/behind-a-proxy.md lacks %q", from)
		}
		documented = strings.ReplaceAll(documented, from, to)
	}
	n.write("nginx.conf", fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr notice;
events {}
http {
client_body_temp_path %[1]s/body;
proxy_temp_path %[1]s/proxy;
fastcgi_temp_path %[1]s/fastcgi;
uwsgi_temp_path %[1]s/uwsgi;
scgi_temp_path %[1]s/scgi;
%[2]s}
`, n.dir, documented))
	cmd := exec.Command(path, "-p", n.dir, "-e", "stderr", "-c", n.path("nginx.conf"))
	cmd.WaitDelay = time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lineWith(t, stderr, "event method") // it listens

	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	n.client = &http.Client{Transport: transport}
	return n
}

func (n *nginx) path(name string) string { return filepath.Join(n.dir, name) }

func (n *nginx) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// documented returns the configuration on the page.
func (n *nginx) documented() string {
	n.t.Helper()
	page, err := os.ReadFile("../../docs/behind-a-proxy.md")
	if err != nil {
		n.t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```nginx\n(.*?)^```").FindSubmatch(page)
	if block == nil {
		n.t.Fatal("docs/behind-a-proxy.md has no configuration of nginx")
	}
	return string(block[1])
}

// makeCertificate makes a certificate for jobs.example.com and returns the pool that trusts it.
func (n *nginx) makeCertificate() *x509.CertPool {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"jobs.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		n.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		n.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	n.write("cert.pem", string(text))
	n.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}

// freeAddress returns an address on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// send makes a request through the proxy, as a browser elsewhere would.
func (n *nginx) send(method, url string, body io.Reader, headers ...string) *http.Response {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, url, body)
	if err != nil {
		n.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := n.client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { res.Body.Close() })
	return res
}

// The documented nginx passes on events as they come, WebSockets and whole bodies, and removes
// what a browser says about its user. The log has no token.
func TestDocumentedNginxWorks(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nginx")
	}
	t.Parallel()
	const site = "https://jobs.example.com"
	model := dictatedModel{make(chan string)}
	upstream := httptest.NewServer(model)
	t.Cleanup(upstream.Close)
	s := serve(t, func(c *config.Config) {
		c.Models = []config.Model{{Name: "dictated", BaseURL: upstream.URL + "/v1"}}
		c.PublicURL = site
	})
	n := startNginx(t, s.components.listener.Addr().String())
	status, j := s.call("POST", "/v1/jobs", `{"queue":"chat","input":{"messages":[{"role":"user","content":"tides?"}]}}`, "X-User-ID", "ann")
	if status != 202 {
		t.Fatalf("%d %v", status, j)
	}
	id := j["id"].(string)
	watch := j["urls"].(map[string]any)["watch"].(string)
	_, token, _ := strings.Cut(watch, "token=")
	if !strings.HasPrefix(watch, site+"/v1/jobs/") {
		t.Errorf("the watch URL is %s", watch)
	}

	events := n.send("GET", watch, nil)
	lines := bufio.NewScanner(events.Body)
	until := func(text string) {
		t.Helper()
		for !strings.Contains(lines.Text(), text) {
			if !lines.Scan() {
				t.Fatalf("the stream ended without %s (%v)", text, lines.Err())
			}
		}
	}
	until("snapshot")
	model.words <- "The moon "
	until("The moon ") // while the model has more to say
	model.words <- "pulls."
	until("pulls.")

	socket, _, err := websocket.Dial(t.Context(), "wss://jobs.example.com/v1/watch?token="+token, &websocket.DialOptions{HTTPClient: n.client})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	if err := socket.Write(t.Context(), websocket.MessageText, []byte(`{"type":"watch","id":"`+id+`"}`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := socket.Read(t.Context()); err != nil || !strings.Contains(string(text), id) {
		t.Errorf("the socket says %s (%v)", text, err)
	}

	close(model.words)
	until("event: done")
	const basic = "Basic YW5uOnNlY3JldA==" // ann:secret
	_, asked := s.call("POST", "/api/chat", `{"query":"tides?"}`, "X-User-ID", "ann")
	question := site + "/api/chat/status/" + asked["task_id"].(string)
	for rule, tt := range map[string]struct {
		url     string
		status  int
		headers []string
	}{
		"a token":                           {site + "/v1/jobs/" + id + "?token=" + token, 200, nil},
		"the user that a browser names":     {site + "/v1/jobs/" + id, 404, []string{"X-User-ID", "ann"}},
		"the user that nginx authenticated": {question, 200, []string{"Authorization", basic, "X-User-ID", "bob"}},
		"nobody":                            {question, 401, []string{"X-User-ID", "ann"}},
		"the metrics":                       {site + "/metrics", 404, nil},
		"the list of all jobs":              {site + "/v1/jobs", 404, nil},
	} {
		if res := n.send("GET", tt.url, nil, tt.headers...); res.StatusCode != tt.status {
			t.Errorf("%s: %s, want %d", rule, res.Status, tt.status)
		}
	}
	// Meanwhile itself refuses a body above nginx's default limit, with its own code.
	res := n.send("POST", site+"/api/chat", strings.NewReader(`{"query":"`+strings.Repeat("x", 1100<<10)+`"}`), "Authorization", basic, "Content-Type", "application/json")
	if text, _ := io.ReadAll(res.Body); res.StatusCode < 400 || !strings.Contains(string(text), `"code"`) {
		t.Errorf("a large body: %s %.200s", res.Status, text)
	}
	log, err := os.ReadFile(n.path("access.log"))
	if err != nil || !strings.Contains(string(log), `"GET /v1/jobs/`+id) || strings.Contains(string(log), "token") {
		t.Errorf("the log of nginx is %s (%v)", log, err)
	}
}
