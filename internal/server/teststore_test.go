package server

import (
	"os"
	"sync"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// storeVariable chooses where the servers of the tests keep their jobs: "postgres", or SQLite
// without it. make test-postgres sets it.
const storeVariable = "MEANWHILE_TEST_STORE"

// testDatabases has the database of each data directory.
var testDatabases sync.Map

// chooseStore sets the database of a server that names none.
func chooseStore(t *testing.T, c *config.Config) {
	t.Helper()
	if os.Getenv(storeVariable) != "postgres" || c.Database != "" {
		return
	}
	pgtest.InShort(t)
	url, known := testDatabases.Load(c.Data)
	if !known {
		url, _ = testDatabases.LoadOrStore(c.Data, pgtest.Shared(t).Schema(t).URL())
	}
	c.Database = url.(string)
}

// onlySQLite skips a test of what the data directory holds.
func onlySQLite(t *testing.T) {
	t.Helper()
	if os.Getenv(storeVariable) == "postgres" {
		t.Skip("it is about the data directory of a server without a database")
	}
}
