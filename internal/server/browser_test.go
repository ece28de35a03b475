package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// program finds a program that a test needs, under one of its names. If it is missing, the
// test is skipped, but fails in CI.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	how := names[0] + " is not installed: examples/needs says how it is"
	if os.Getenv("MEANWHILE_CI") != "" {
		t.Fatal(how)
	}
	t.Skip(how)
	return ""
}

// lineWith reads what a program writes until a line that has a text, and reads the
// rest in the background, so that the program never waits for a reader.
func lineWith(t *testing.T, out io.Reader, text string) string {
	t.Helper()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if line := lines.Text(); strings.Contains(line, text) {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return line
		}
	}
	t.Fatalf("the program ended and never stderr %q: %v", text, lines.Err())
	return ""
}

// browserTimeout is how long a test waits for a browser.
const browserTimeout = 3 * time.Minute

// browser is a headless Chromium, driven by its DevTools protocol.
type browser struct {
	*testing.T
	conn *websocket.Conn

	mu      sync.Mutex
	last    int
	answers map[int]chan answered // guarded by mu; nil when the browser has ended
}

// answered is the browser's answer to a call.
type answered struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
}

// openBrowser starts a browser that ends with the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	cmd := exec.Command(program(t, "chromium", "chromium-browser", "google-chrome"),
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.WaitDelay = time.Second // its child processes may hold its output open
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{T: t, answers: map[int]chan answered{}}
	recordingUpstream := make(chan struct{})
	t.Cleanup(func() {
		if b.conn != nil {
			_ = b.conn.Write(context.Background(), websocket.MessageText, []byte(`{"id":0,"method":"Browser.close"}`))
			<-recordingUpstream
		} else {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
	})
	_, at, _ := strings.Cut(lineWith(t, stderr, "DevTools listening on "), "listening on ")
	if b.conn, _, err = websocket.Dial(t.Context(), at, nil); err != nil {
		t.Fatal(err)
	}
	b.conn.SetReadLimit(-1)
	go func() { b.hear(); close(recordingUpstream) }()
	return b
}

// hear passes on the browser's answers until the browser has ended.
func (b *browser) hear() {
	for {
		var a answered
		_, text, err := b.conn.Read(context.Background())
		if err == nil {
			err = json.Unmarshal(text, &a)
		}
		b.mu.Lock()
		if c := b.answers[a.ID]; c != nil {
			c <- a
			delete(b.answers, a.ID)
		}
		if err != nil {
			b.answers = nil
		}
		b.mu.Unlock()
		if err != nil {
			return
		}
	}
}

type params = map[string]any

// try calls a method of the protocol, of the browser or of a tab. It returns false if no
// answer comes in time.
func (b *browser) try(tab, method string, p params, wait time.Duration) (answered, bool) {
	b.Helper()
	c := make(chan answered, 1)
	b.mu.Lock()
	b.last++
	call := params{"id": b.last, "method": method, "params": p}
	if b.answers != nil {
		b.answers[b.last] = c
	}
	b.mu.Unlock()
	if tab != "" {
		call["sessionId"] = tab
	}
	text, err := json.Marshal(call)
	if err == nil {
		err = b.conn.Write(b.Context(), websocket.MessageText, text)
	}
	if err != nil {
		b.Fatalf("%s: %v", method, err)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case a := <-c:
		return a, true
	case <-timer.C:
		return answered{}, false
	}
}

// ask calls a method that is answered, and reads the answer.
func (b *browser) ask(tab, method string, p params, to any) {
	b.Helper()
	a, ok := b.try(tab, method, p, browserTimeout)
	if !ok || a.Error != nil {
		b.Fatalf("%s %v: answered: %v, %+v", method, p, ok, a.Error)
	}
	if err := json.Unmarshal(a.Result, to); err != nil {
		b.Fatalf("%s %v: %v", method, p, err)
	}
}

// tab is a page of the browser.
type tab struct {
	*browser
	session string
}

// open opens a page in a new tab.
func (b *browser) open(url string) *tab {
	b.Helper()
	var made struct{ TargetID, SessionID string }
	b.ask("", "Target.createTarget", params{"url": url}, &made)
	b.ask("", "Target.attachToTarget", params{"targetId": made.TargetID, "flatten": true}, &made)
	t := &tab{b, made.SessionID}
	t.ask(t.session, "Network.enable", nil, &struct{}{})
	return t
}

// leave runs a script that makes the tab load another page. Later calls are for the new page.
func (t *tab) leave(js string) {
	t.Helper()
	t.run(`window.left = true; ` + js)
}

// offline switches the tab's network off or on. It does not end open connections: use
// cutproxy for that.
func (t *tab) offline(is bool) {
	t.Helper()
	t.ask(t.session, "Network.emulateNetworkConditions", params{"offline": is, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}, &struct{}{})
}

// evaluation is the outcome of an expression.
type evaluation struct {
	Result           struct{ Value any }
	ExceptionDetails json.RawMessage
}

// run evaluates an expression in the page.
func (t *tab) run(js string) string {
	t.Helper()
	var got evaluation
	t.ask(t.session, "Runtime.evaluate", params{"expression": js, "returnByValue": true}, &got)
	if got.ExceptionDetails != nil {
		t.Fatalf("%s: %s", js, got.ExceptionDetails)
	}
	return fmt.Sprint(got.Result.Value)
}

// until waits until the text of an element of the page makes a condition true. If the tab
// loads another page, the promise of the old one is lost, and until tries the new one.
func (t *tab) until(element, condition string) {
	t.Helper()
	js := `new Promise(over => {
		const look = () => {
			const text = document.querySelector('` + element + `')?.textContent ?? ''
			if (!window.left && (` + condition + `)) over(true)
		}
		new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true })
		setTimeout(over, 1000, false)
		look()
	})`
	for began := time.Now(); time.Since(began) < browserTimeout; {
		a, ok := t.try(t.session, "Runtime.evaluate", params{"expression": js, "awaitPromise": true, "returnByValue": true}, 5*time.Second)
		var got evaluation
		if ok && a.Error == nil && json.Unmarshal(a.Result, &got) == nil && got.Result.Value == true {
			return
		}
	}
	t.Fatalf("%s was not to be seen: %s", condition, t.run(`document.documentElement.outerHTML`))
}
