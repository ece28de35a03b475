package main

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

func TestOrdersAndMailsExistBothOrNeither(t *testing.T) {
	db := pgtest.Shared(t).Schema(t)
	conn := db.Connect(t)
	if _, err := conn.Exec(t.Context(), "create table orders (id bigserial primary key, item text not null)"); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), db.URL(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string][]string{
		"select item from orders order by id": {"chair", "table"},
		"select key from ended order by n":    {"chair", "table"},
		"select id from inbox":                nil,
	} {
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", sql, got, err, want)
		}
	}
}
