package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// restrictedThreads returns the number of this process's threads that may gain no privileges.
func restrictedThreads(t *testing.T) (n int) {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range threads {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), "NoNewPrivs:\t1") {
			n++
		}
	}
	return n
}
