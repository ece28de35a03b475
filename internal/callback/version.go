package callback

import (
	"context"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// A tenant's endpoints have a version: a row in one list of all tenants, whose id is the tenant
// and a number. Each change of the endpoints replaces the row by the one with the next number,
// on the condition that it replaces the number that the change was made from. So of two changes
// at the same moment one is refused and made again, and one read of the list tells a process
// whose endpoints have changed.
var versions = store.RowSet{Owner: job.Owner{Tenant: "\x01", User: reservedUser}, Kind: "webhook_version"}

func versionRow(tenant string, version int64, action store.Action) store.Row {
	id := tenant + "/" + strconv.FormatInt(version, 10)
	return store.Row{Owner: versions.Owner, Kind: versions.Kind, ID: id, Body: []byte("1"), Action: action}
}

// nextVersion returns the rows that replace a version by the next one.
func nextVersion(tenant string, version int64) []store.Row {
	next := versionRow(tenant, version+1, store.Insert)
	if version == 0 {
		// The tenant has no endpoints yet. The row 0 stays, so that a process that has not heard of the
		// versions after it does not begin again.
		return []store.Row{versionRow(tenant, 0, store.Insert), next}
	}
	return []store.Row{versionRow(tenant, version, store.Require), versionRow(tenant, version, store.Remove), next}
}

// readVersions reads the versions of all tenants.
func readVersions(ctx context.Context, from store.RowReader) (map[string]int64, error) {
	rows, err := readAll(ctx, from, versions)
	list := make(map[string]int64, len(rows))
	for i := range rows {
		tenant, number, _ := strings.Cut(rows[i].ID, "/")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			list[tenant] = max(n, list[tenant])
		}
	}
	return list, err
}

const readPage = 500

// readAll reads all rows of a set.
func readAll(ctx context.Context, from store.RowReader, of store.RowSet) (all []store.Row, err error) {
	page := store.RowPage{Limit: readPage}
	for {
		rows, err := from.Rows(ctx, of, page)
		all = append(all, rows...)
		if err != nil || len(rows) < readPage {
			return all, err
		}
		page.After = rows[len(rows)-1].ID
	}
}
