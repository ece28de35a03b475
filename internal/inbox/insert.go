package inbox

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Exec executes a statement in a transaction of the caller.
type Exec func(ctx context.Context, sql string, args ...any) error

const insertRow = ` (id, tenant, usr, queue, body, idempotency) values ($1::text, $2::text, $3::text, $4::text, $5::text::json, nullif($6::text, ''))`

// Insert inserts a row in a transaction of the caller, which may have any search_path.
func (x *Inbox) Insert(ctx context.Context, exec Exec, r Row) error {
	schema, err := x.schemaName(ctx)
	if err != nil {
		return err
	}
	idempotency := ""
	if r.Idempotency != nil {
		idempotency = *r.Idempotency
	}
	if err := exec(ctx, "insert into "+pgx.Identifier{schema, "inbox"}.Sanitize()+insertRow,
		r.ID, r.Owner.Tenant, r.Owner.User, r.Queue, string(r.Body), idempotency); err != nil {
		return err
	}
	x.Wake()
	return nil
}

// schemaName returns the schema of the table.
func (x *Inbox) schemaName(ctx context.Context) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.schema != "" {
		return x.schema, nil
	}
	rows, err := x.config.DB.Query(ctx, "select current_schema()")
	if err != nil {
		return "", err
	}
	x.schema, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	return x.schema, err
}
