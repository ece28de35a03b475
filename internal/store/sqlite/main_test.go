package sqlite_test

import (
	"flag"
	"os"
	"testing"
)

// Tests run in parallel, so flags that all of them read are set before the first one. A flag
// that was given on the command line keeps its value.
func TestMain(m *testing.M) {
	flag.Parse()
	checks := "40"
	if testing.Short() {
		checks = "15" // rapid divides by five with -short
	}
	setDefault("rapid.checks", checks)
	setDefault("test.parallel", "8") // most of a test's time is spent waiting for the disk
	os.Exit(m.Run())
}

func setDefault(name, value string) {
	if f := flag.Lookup(name); f.Value.String() == f.DefValue {
		_ = f.Value.Set(value)
	}
}
