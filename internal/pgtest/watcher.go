package pgtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// script starts and stops the server on commands from its input. The input ends when the test
// process does, whatever ended it; the script then stops the server and removes its directory.
// It runs with the directory of the programs and the directory of the server.
const script = `
while read -r command signal; do
	case $command in
	start)
		rm -f "$2/pid" "$2/exited"
		{ sh -c 'echo $$ >"$2/pid"; exec "$1/postgres" -D "$2/data"' sh "$1" "$2" >>"$2/log" 2>&1; : >"$2/exited"; } &
		until [ -s "$2/pid" ]; do sleep 0.01; done
		;;
	stop)
		kill -s "$signal" "$(cat "$2/pid")"
		wait
		;;
	esac
	echo done
done
[ -s "$2/pid" ] && kill -s QUIT "$(cat "$2/pid")" 2>/dev/null
wait
cd / && rm -rf "$2"
`

// watcher is the process between the tests and a server.
type watcher struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	exited string // the path of a file that exists when the server has exited
}

func watch(o owner, programs, dir string) (*watcher, error) {
	w := &watcher{cmd: o.command(dir, "/bin/sh", "-c", script, "pgtest", programs, dir), exited: filepath.Join(dir, "exited")}
	output, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.output = bufio.NewReader(output)
	if w.input, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	return w, nil
}

// start starts the server's process.
func (w *watcher) start() error { return w.do("start") }

// stop sends a signal to the server's process and waits until it has exited.
func (w *watcher) stop(signal string) error { return w.do("stop " + signal) }

func (w *watcher) do(command string) error {
	_, err := io.WriteString(w.input, command+"\n")
	if err == nil {
		_, err = w.output.ReadString('\n')
	}
	if err != nil {
		return fmt.Errorf("pgtest: %s: the watcher of the server is gone: %w", strings.Fields(command)[0], err)
	}
	return nil
}

// hasExited reports whether the server's process has exited.
func (w *watcher) hasExited() bool {
	_, err := os.Stat(w.exited)
	return err == nil
}

// remove stops the server and removes its directory.
func (w *watcher) remove() {
	_ = w.input.Close()
	_ = w.cmd.Wait()
}
