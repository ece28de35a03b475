package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// echoModel answers with the last question and the number of messages. It refuses "bad", and
// never answers "slow".
func echoModel(w http.ResponseWriter, r *http.Request) {
	var in struct{ Messages []struct{ Content string } }
	_ = json.NewDecoder(r.Body).Decode(&in)
	switch last := in.Messages[len(in.Messages)-1].Content; last {
	case "bad":
		http.Error(w, `{"error":{"message":"no"}}`, http.StatusBadRequest)
	case "slow":
		<-r.Context().Done()
	default:
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", fmt.Sprintf("%s (%d)", last, len(in.Messages)))
	}
}

// oldApplication is the application whose chat moved: it has the pages, and knows who asks.
func oldApplication(w http.ResponseWriter, r *http.Request) {
	user := "local user"
	if c, err := r.Cookie("user"); err == nil {
		user = c.Value
	}
	switch r.URL.Path {
	case "/whoami":
		w.Header().Set("X-User-ID", user)
	case "/clients.js":
		http.ServeFile(w, r, "testdata/moving/clients.js")
	default:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<pre id="out"></pre><script src="/clients.js"></script><script>
			run(location.origin, 'browser').catch(String).then(said => { document.querySelector('#out').textContent = said + '\nend' })
		</script>`)
	}
}

// documented returns the first block of a language on a page of the documentation.
func documented(t *testing.T, page, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```").FindSubmatch(text)
	if block == nil {
		t.Fatalf("docs/%s has no %s", page, language)
	}
	return string(block[1])
}

// movedApplication starts an application whose chat has moved to Meanwhile, behind the nginx of
// docs/moving-over.md, and returns its address.
func movedApplication(t *testing.T) (url string) {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = program(t, "/usr/sbin/nginx", "nginx") // not in every user's PATH
	}
	model := httptest.NewServer(http.HandlerFunc(echoModel))
	t.Cleanup(model.Close)
	s := serve(t, func(c *config.Config) {
		c.Models = []config.Model{{Name: "echo", BaseURL: model.URL + "/v1"}}
		q := c.Queues["chat"]
		q.Concurrency, q.MaxDepth = 2, 3
		c.Queues["chat"] = q
	})
	app := httptest.NewServer(http.HandlerFunc(oldApplication))
	t.Cleanup(app.Close)

	dir, addr := t.TempDir(), freeAddress(t)
	snippet := documented(t, "moving-over.md", "nginx")
	for from, to := range map[string]string{
		"listen 80;":     "listen " + addr + ";",
		"127.0.0.1:8080": strings.TrimPrefix(s.URL(), "http://"),
		"127.0.0.1:9000": strings.TrimPrefix(app.URL, "http://"),
	} {
		if !strings.Contains(snippet, from) {
			t.Fatalf("docs/moving-over.md lacks %q", from)
		}
		snippet = strings.ReplaceAll(snippet, from, to)
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr notice;
events {}
http {
access_log off;
client_body_temp_path %[1]s/body;
proxy_temp_path %[1]s/proxy;
fastcgi_temp_path %[1]s/fastcgi;
uwsgi_temp_path %[1]s/uwsgi;
scgi_temp_path %[1]s/scgi;
%[2]s}
`, dir, snippet)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", conf)
	cmd.WaitDelay = time.Second
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lineWith(t, stderr, "event method") // it listens
	return "http://" + addr
}

// wantMoved checks what the old clients have seen.
func wantMoved(t *testing.T, said string) {
	t.Helper()
	want := []string{
		"ask: hello (1)", "ask again: and again (3)", "other: hello (1)", "socket: a third time (5) at 100",
		"list: ,2 true", "messages: user,assistant,user,assistant,user,assistant",
		"slow: failed", "cancel: 200 cancelled", "refused: failed", "too many: full: string", "heartbeat: 200",
	}
	if strings.Contains(said, "socket: none here") { // an older node
		t.Log("this node has no WebSocket")
		want[3], want[4], want[5] = "socket: none here", "list: 2, true", "messages: user,assistant,user,assistant"
	}
	if got := strings.TrimSpace(said); got != strings.Join(want, "\n") {
		t.Errorf("the clients saw\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// The clients of the application that the chat API comes from work unchanged.
func TestOldClientsInNode(t *testing.T) {
	if testing.Short() {
		t.Skip("runs node and nginx; its clients poll every two seconds")
	}
	t.Parallel()
	node := program(t, "node", "nodejs")
	url := movedApplication(t)
	clients, err := os.ReadFile("testdata/moving/clients.js")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-e", string(clients) + "\nrun('" + url + "', 'node').then(console.log)"}
	if exec.Command(node, "--experimental-websocket", "-e", "0").Run() == nil {
		args = append([]string{"--experimental-websocket", "--no-warnings"}, args...)
	}
	out, err := exec.CommandContext(t.Context(), node, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantMoved(t, string(out))
}

func TestOldClientsInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a browser and nginx; its clients poll every two seconds")
	}
	t.Parallel()
	b := openBrowser(t)
	page := b.open(movedApplication(t) + "/")
	page.until("#out", `text.endsWith('end')`)
	wantMoved(t, strings.TrimSuffix(page.run(`document.querySelector('#out').textContent`), "\nend"))
}

// The names of two users do not meet, whatever a browser says about itself.
func TestProxyOfMovedApplicationNamesTheUser(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nginx")
	}
	t.Parallel()
	url := movedApplication(t)
	ask := func(user, header string) (status int) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", url+"/api/conversations/conv123", nil)
		if header == "" {
			req, _ = http.NewRequestWithContext(t.Context(), "POST", url+"/api/chat", strings.NewReader(`{"query":"slow","conversation_id":"conv123"}`))
		}
		req.Header.Set("X-User-ID", header)
		req.AddCookie(&http.Cookie{Name: "user", Value: user})
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := ask("ann", ""); got != 202 {
		t.Fatal(got)
	}
	if got := ask("ann", "bob"); got != 200 {
		t.Errorf("ann, who says that she is bob, gets %d", got)
	}
	if got := ask("bob", "ann"); got != 404 {
		t.Errorf("bob, who says that he is ann, gets %d", got)
	}
}

// The PHP of docs/moving-over.md asks and polls.
func TestPHPOfMovedApplication(t *testing.T) {
	if testing.Short() {
		t.Skip("runs PHP, which polls every two seconds")
	}
	t.Parallel()
	php := program(t, "php")
	model := httptest.NewServer(http.HandlerFunc(echoModel))
	t.Cleanup(model.Close)
	s := serve(t, func(c *config.Config) { c.Models = []config.Model{{Name: "echo", BaseURL: model.URL + "/v1"}} })
	script := filepath.Join(t.TempDir(), "ask.php")
	text := strings.ReplaceAll(documented(t, "moving-over.md", "php"), "http://127.0.0.1:8080", s.URL())
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{"How do tides work?": "How do tides work? (1)", "bad": "Sorry: "} {
		out, err := exec.CommandContext(t.Context(), php, script, query, "conv for "+query).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %v: %s", query, err, out)
		}
	}
}

// A page of another origin needs its origin in allowed_origins and a token. It reads which of the
// two it lacks, and works with both, over every transport.
func TestPageOfAnotherOriginInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a browser")
	}
	t.Parallel()
	b := openBrowser(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<pre id="out"></pre><script>
			async function ask(server, token) {
				const headers = { 'Content-Type': 'application/json', 'X-User-ID': 'bob' }
				if (token) headers.Authorization = 'Bearer ' + token
				const call = async (method, path, body) => {
					const answer = await fetch(server + path, { method, headers, body })
					return [answer.status, await answer.json()]
				}
				const said = []
				const [status, task] = await call('POST', '/api/chat', '{"query":"hello","conversation_id":"conv123"}')
				if (status !== 202) return status + ' ' + task.error
				await new Promise((resolve, reject) => {
					const events = new EventSource(server + task.urls.events + '?token=' + token)
					events.addEventListener('done', () => { events.close(); resolve() })
				})
				said.push((await call('GET', task.urls.status))[1].result.answer)
				said.push((await call('GET', '/api/conversations'))[1].conversations[0].id)
				said.push((await call('DELETE', '/api/conversations/conv123'))[0])
				token = (await call('POST', '/v1/tokens'))[1].token
				said.push(await new Promise(resolve => {
					const socket = new WebSocket(server.replace('http', 'ws') + '/ws?token=' + token)
					socket.onopen = () => socket.send('{"type":"chat_query","query":"again","conversation_id":"conv123"}')
					socket.onmessage = e => {
						const message = JSON.parse(e.data)
						if (message.type === 'chat_response') { socket.close(); resolve(message.answer) }
					}
				}))
				return said.join()
			}
			function show(server, token) {
				document.querySelector('#out').textContent = ''
				ask(server, token).catch(String).then(said => { document.querySelector('#out').textContent = said + '\nend' })
			}
		</script>`)
	}))
	t.Cleanup(page.Close)
	model := httptest.NewServer(http.HandlerFunc(echoModel))
	t.Cleanup(model.Close)
	start := func(origins ...string) *testServer {
		return serve(t, func(c *config.Config) {
			c.Models = []config.Model{{Name: "echo", BaseURL: model.URL + "/v1"}}
			c.AllowedOrigins = origins
		})
	}
	allowed, strange := start(page.URL), start()
	tab := b.open(page.URL)
	tab.until("#out", `text === ''`)
	said := func(s *testServer, token string) string {
		t.Helper()
		tab.run(fmt.Sprintf("show(%q, %q); 0", s.URL(), token))
		tab.until("#out", `text.endsWith('end')`)
		return tab.run(`document.querySelector('#out').textContent`)
	}
	strangeToken, _ := strange.mint("ann", `{}`)
	token, _ := allowed.mint("ann", `{}`)
	for _, c := range []struct {
		rule, said, want, lacks string
	}{
		{"neither", said(strange, ""), "403 ", "it has a token"},
		{"a token only", said(strange, strangeToken), "it has a token", "POST /v1/tokens"},
		{"the origin only", said(allowed, ""), "its origin is in allowed_origins", "configuration"},
		{"both", said(allowed, token), "hello (1),conv123,403,again (3)\nend", "Error"},
	} {
		if !strings.Contains(c.said, c.want) || strings.Contains(c.said, c.lacks) {
			t.Errorf("with %s: %s", c.rule, c.said)
		}
	}
}
