package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestADataDirectoryIsMadeForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := openData(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.release()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestASecondServerOnADataDirectoryIsToldWhoHoldsIt(t *testing.T) {
	path := t.TempDir()
	first, err := openData(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openData(path)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another server (pid %d)", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	again, err := openData(path)
	if err != nil {
		t.Fatalf("released, and still held: %v", err)
	}
	again.release()
}

func TestADataDirectoryThatIsAFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openData(file); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Error(err)
	}
}
