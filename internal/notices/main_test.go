package main

import (
	"bytes"
	"os"
	"testing"
)

func TestNoticesAreCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("it lists the modules of the program")
	}
	t.Parallel()
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../THIRD_PARTY_NOTICES")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("THIRD_PARTY_NOTICES is not what the program is built from: run make notices")
	}
}
