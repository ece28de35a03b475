package sqlite

import (
	"io/fs"
	"regexp"
	"strconv"
	"testing"
)

// A database stores how many migrations it has. If a new migration sorted between older ones, an
// old database would skip it and apply the last one twice.
func TestMigrationsAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations, "migrations/*")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	named := regexp.MustCompile(`^migrations/(\d{4})_[a-z_]+\.sql$`)
	for i, name := range names {
		parts := named.FindStringSubmatch(name)
		if parts == nil {
			t.Errorf("%s is not the name of a migration", name)
			continue
		}
		if n, _ := strconv.Atoi(parts[1]); n != i+1 {
			t.Errorf("%s is in the place of migration %d", name, i+1)
		}
	}
}
