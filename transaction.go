package meanwhile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/server"
)

// Tx is a transaction of the program in the database of [Config.Database]. [SQLTx] and [PgxTx]
// make one; for another driver it is one method.
type Tx interface {
	// Exec executes a statement with the parameters $1, $2 and so on, which are strings.
	Exec(ctx context.Context, query string, args ...any) error
}

type txFunc func(ctx context.Context, query string, args ...any) error

func (f txFunc) Exec(ctx context.Context, query string, args ...any) error {
	return f(ctx, query, args...)
}

// SQLTx is a [Tx] over a transaction of database/sql, whose driver is one for PostgreSQL.
func SQLTx(tx *sql.Tx) Tx {
	return txFunc(func(ctx context.Context, query string, args ...any) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

// PgxTx is a [Tx] over a transaction of pgx.
func PgxTx[T any](tx interface {
	Exec(ctx context.Context, query string, args ...any) (T, error)
}) Tx {
	return txFunc(func(ctx context.Context, query string, args ...any) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	})
}

// SubmitTx submits a job of the user "local" in a transaction of the program: the job exists if
// the transaction is committed, and does not if it is not. The id names the job after the commit.
// A server takes it then within a quarter of a second, or later if its queue or key is full: then
// the job is tried again each second.
//
// A submission that no server would take is refused at once, as by [client.Client.Submit], and
// the transaction stays usable. Files cannot be submitted. If a job has the submission's
// IdempotencyKey already, there is no second job, and the id names none: docs/inbox.md says how
// to find the first. Without [Config.Database] the error has the code [client.CodeUnsupported].
func (s *Server) SubmitTx(ctx context.Context, tx Tx, sub Submission) (id string, err error) {
	return s.SubmitTxAs(ctx, tx, "", sub)
}

// SubmitTxAs is [Server.SubmitTx] for a user. "" means the user "local".
func (s *Server) SubmitTxAs(ctx context.Context, tx Tx, user string, sub Submission) (id string, err error) {
	body, err := sub.InboxBody()
	if err != nil {
		return "", err
	}
	id, err = s.server.SubmitTx(ctx, tx.Exec, server.Insertion{User: user, Queue: sub.Queue, Body: body, Idempotency: sub.IdempotencyKey})
	if refused, ok := errors.AsType[*job.Error](err); ok {
		return "", &Error{Code: string(refused.Code), Message: refused.Message, Field: refused.Field, RetryAfter: refused.RetryAfter, Err: refused.Err}
	}
	if err != nil {
		return "", fmt.Errorf("meanwhile: the job cannot be inserted in this transaction: %w", err)
	}
	return id, nil
}
