package cli

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// killable is a server in a process of its own: this test binary, run as the
// program itself.
type killable struct {
	listen, data string
	cmd          *exec.Cmd
}

func newKillable(t *testing.T) *killable {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv(asProgram, "1")
	k := &killable{listen: ln.Addr().String(), data: t.TempDir()}
	t.Cleanup(k.kill)
	return k
}

// start starts it and returns when it says that it is ready.
func (k *killable) start(t *testing.T) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k.cmd = exec.Command(program, "serve", "--listen", k.listen, "--data", k.data, "--log-format", "json")
	log, err := k.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"msg":"ready"`) {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return
		}
	}
	t.Fatal("the server is not ready")
}

// kill is kill -9.
func (k *killable) kill() {
	if k.cmd != nil {
		_ = k.cmd.Process.Kill()
		_ = k.cmd.Wait()
		k.cmd = nil
	}
}

func TestAnAnswerIsReadThroughAKillOfTheServer(t *testing.T) {
	k := newKillable(t)
	k.start(t)
	url := "http://" + k.listen

	submitted := on(url)
	if code := submitted.run(t, "submit", "sim", `{"tokens":60,"tokens_per_s":60}`); code != exitOK {
		t.Fatalf("exit status %d: %s", code, &submitted.err)
	}
	id := strings.TrimSpace(submitted.out.String())

	all := on(url)
	words, told := io.Pipe()
	all.Out = told
	ended := make(chan int, 1)
	go func() {
		ended <- Run(t.Context(), &all.Env, []string{"watch", id, "--follow"})
		told.Close()
	}()
	var text bytes.Buffer
	if _, err := io.CopyN(&text, words, 20); err != nil {
		t.Fatal(err)
	}
	k.kill()
	k.start(t)
	if _, err := io.Copy(&text, words); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != exitOK {
		t.Fatalf("exit status %d: %s", code, &all.err)
	}
	all.wantErr(t, "The server went away", "The server is back.", "--- attempt 2 begins")

	last := on(url)
	if code := last.run(t, "watch", id); code != exitOK || !strings.HasPrefix(last.out.String(), "The work") {
		t.Errorf("exit status %d: %s", code, &last.out)
	}
	if first, _, _ := strings.Cut(text.String(), "\n"); text.String() != first+"\n"+last.out.String() || !strings.HasPrefix(last.out.String(), first) {
		t.Errorf("all attempts said\n%s, the last\n%s", &text, &last.out)
	}
}
