package process

import (
	"os"
	"os/exec"
	"testing"
)

// A server that is killed takes the commands it runs with it.
func TestAKilledServerLeavesNoCommand(t *testing.T) {
	alive, gone := fifo(t)
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), scriptOfServer+"=exec 3>"+alive+"; echo ready; exec sleep 1000")
	said, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := said.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the server did not begin: %v", err)
	}
	_ = server.Process.Kill()
	_ = server.Wait()
	<-gone
}
