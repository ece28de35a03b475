package postgres

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

const rowsOfSet = " from records where tenant = $1 and usr = $2 and kind = $3 and parent = $4"

var (
	readRow      = &statement{"read_row", "select body" + rowsOfSet + " and id = $5"}
	readRowsUp   = &statement{"read_rows_up", "select id, body" + rowsOfSet + " and id > $5 order by id limit $6::bigint"}
	readRowsDown = &statement{"read_rows_down", "select id, body" + rowsOfSet + " and id < $5 order by id desc limit $6::bigint"}
	readRowsLast = &statement{"read_rows_last", "select id, body" + rowsOfSet + " order by id desc limit $5::bigint"}
	readTenant   = &statement{"read_tenant_rows", "select usr, kind, parent, id from records where tenant = $1 order by usr, kind, parent, id limit $2::bigint"}
	readTally    = &statement{"read_tally", `select scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes
		from tallies where tenant = $1 and usr = $2 and name = $3`}
)

// Row reads one side row; see [store.RowReader].
func (s *Store) Row(ctx context.Context, of store.RowSet, id string) (row store.Row, err error) {
	found := false
	err = s.read(ctx, readRow, func(r *record) error {
		body, err := s.ring.Open(sealed.Row(of, id), r.bytes())
		row, found = rowOf(of, id, body), true
		return err
	}, append(setParams(of), []byte(id))...)
	if err == nil && !found {
		err = job.Errorf(job.NotFound, "there is no %s %s", of.Kind, job.Quote(id))
	}
	return row, err
}

// Rows lists side rows; see [store.RowReader].
func (s *Store) Rows(ctx context.Context, of store.RowSet, page store.RowPage) (rows []store.Row, err error) {
	q, params := readRowsUp, append(setParams(of), []byte(page.After), intParam(int64(page.Limit)))
	switch {
	case page.Desc && page.After == "":
		q, params = readRowsLast, append(setParams(of), intParam(int64(page.Limit)))
	case page.Desc:
		q = readRowsDown
	}
	err = s.read(ctx, q, func(r *record) error {
		id := r.text()
		body, err := s.ring.Open(sealed.Row(of, id), r.bytes())
		rows = append(rows, rowOf(of, id, body))
		return err
	}, params...)
	return rows, err
}

// TenantRows lists the side rows of a tenant; see [store.RowReader].
func (s *Store) TenantRows(ctx context.Context, tenant string, limit int) (rows []store.Row, err error) {
	err = s.read(ctx, readTenant, func(r *record) error {
		of := store.RowSet{Owner: job.Owner{Tenant: tenant, User: r.text()}, Kind: r.text(), Parent: r.text()}
		rows = append(rows, rowOf(of, r.text(), nil))
		return nil
	}, []byte(tenant), intParam(int64(limit)))
	return rows, err
}

func rowOf(set store.RowSet, id string, body []byte) store.Row {
	return store.Row{Owner: set.Owner, Kind: set.Kind, Parent: set.Parent, ID: id, Body: body}
}

// Tally reads the counts of a tally; see [store.RowReader].
func (s *Store) Tally(ctx context.Context, owner job.Owner, name string) (c job.Counts, err error) {
	err = s.read(ctx, readTally, func(r *record) error {
		c = scanCounts(r)
		return nil
	}, ownerParams(owner, []byte(name))...)
	return c, err
}
