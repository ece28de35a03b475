package pgtest

import (
	"strings"
	"sync"
	"testing"
)

// inShort has the names of the tests that called InShort.
var inShort sync.Map

// InShort lets a test use PostgreSQL with -short too, where others are skipped: each package
// that does makes a cluster, and most tests are shorter than what their tables take. Call it in
// one test of each promise.
func InShort(t testing.TB) {
	t.Helper()
	inShort.Store(topName(t), true)
}

// skipShort skips a test that is left out with -short.
func skipShort(t testing.TB) {
	t.Helper()
	if !testing.Short() {
		return
	}
	if _, runs := inShort.Load(topName(t)); !runs {
		t.Skip("uses PostgreSQL, whose start and tables take long")
	}
}

// topName returns the name of the test of which t is a part.
func topName(t testing.TB) string {
	name, _, _ := strings.Cut(t.Name(), "/")
	return name
}
