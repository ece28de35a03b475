package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
)

// schema is an empty schema in the database of Options.Database, for the servers of one figure.
type schema struct {
	admin string // the URL of the database
	name  string
	url   string // the same database, with the schema as its search_path
}

func newSchema(ctx context.Context, database string) (*schema, error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, fmt.Errorf("the URL of the database cannot be read") // the cause repeats the URL, with the password
	}
	s := &schema{admin: database, name: "bench_" + strings.ToLower(rand.Text())}
	q := u.Query()
	q.Set("search_path", s.name)
	u.RawQuery = q.Encode()
	s.url = u.String()
	return s, s.exec(ctx, "create schema "+s.name)
}

// drop removes the schema with all that is in it.
func (s *schema) drop() { _ = s.exec(context.Background(), "drop schema "+s.name+" cascade") }

func (s *schema) exec(ctx context.Context, sql string) error {
	c, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	_, err = c.Exec(ctx, sql)
	return err
}

// hold opens a transaction whose snapshot sees all tables as they are now. The function that it
// returns ends it.
func (s *schema) hold(ctx context.Context) (release func(), err error) {
	c, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return nil, err
	}
	tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err == nil {
		_, err = tx.Exec(ctx, "select count(*) from jobs")
	}
	if err != nil {
		_ = c.Close(ctx)
		return nil, err
	}
	return func() { _ = c.Close(context.Background()) }, nil
}

// databaseSetup describes the database for the report: where it is and how it syncs.
func databaseSetup(ctx context.Context, database string) (data, sync string, err error) {
	c, err := pgx.Connect(ctx, database)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = c.Close(ctx) }()
	var version string
	var settings []string
	if err := c.QueryRow(ctx, "show server_version").Scan(&version); err != nil {
		return "", "", err
	}
	for _, name := range []string{"fsync", "synchronous_commit", "wal_sync_method", "full_page_writes", "shared_buffers", "max_wal_size"} {
		var value string
		if err := c.QueryRow(ctx, "select current_setting($1)", name).Scan(&value); err != nil {
			return "", "", err
		}
		settings = append(settings, name+" = "+value)
	}
	at := c.Config()
	return fmt.Sprintf("the database %s at %s, an empty schema for each figure", at.Database, at.Host),
		"PostgreSQL " + version + ", " + strings.Join(settings, ", "), nil
}
