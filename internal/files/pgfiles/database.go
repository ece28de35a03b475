package pgfiles

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// nowMicros is the database's clock in microseconds, as a term of SQL. All processes go by it.
const nowMicros = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"

const (
	// statementTimeout ends a statement whose connection no longer answers.
	statementTimeout = 10 * time.Second
	minWait          = 50 * time.Millisecond
	maxWait          = time.Second
)

// exec runs a statement and returns the number of its rows. The statement must have the same
// effect when it runs twice: while the database is away it is tried again.
func (s *Store) exec(ctx context.Context, sql string, args ...any) (rows int64, err error) {
	err = s.retry(ctx, func(ctx context.Context) error {
		tag, err := s.db.Exec(ctx, sql, args...)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

// collect runs a query and returns its rows. While the database is away it is tried again.
func collect[T any](ctx context.Context, s *Store, row pgx.RowToFunc[T], sql string, args ...any) (list []T, err error) {
	err = s.retry(ctx, func(ctx context.Context) error {
		rows, err := s.db.Query(ctx, sql, args...)
		if err == nil {
			list, err = pgx.CollectRows(rows, row)
		}
		return err
	})
	return list, err
}

// retry calls f until it succeeds, fails for a reason that stays, or the store's patience is
// over. The error is the cause of ctx once that has ended.
func (s *Store) retry(ctx context.Context, f func(context.Context) error) error {
	began := time.Now()
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		err := withTimeout(ctx, f)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil || !isTransient(err) || time.Since(began)+wait > s.patience {
			return err
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func withTimeout(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return f(ctx)
}

// uuid is an id as a parameter. A [16]byte has no type for a statement that is not prepared.
func uuid(id [16]byte) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

// SQLSTATE codes (PostgreSQL, appendix A).
const (
	diskFull = "53100"
	// connectionClass begins the codes of lost connections.
	connectionClass = "08"
)

// transientCodes are the errors of a server that starts, stops, is a standby or has too many
// connections, and of a statement that met another one.
var transientCodes = []string{"57P01", "57P02", "57P03", "57014", "25006", "53300", "40001", "40P01", "55P03"}

// isTransient reports whether a statement that failed may soon succeed.
func isTransient(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(e.Code, connectionClass) || slices.Contains(transientCodes, e.Code)
	}
	// Anything else is an error of the connection.
	return true
}

// unwritable is the refusal for a failed write of an upload; nil for no error.
func unwritable(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == diskFull {
		return &job.Error{Code: job.NoSpace, Message: "the disk of the server's database is full", RetryAfter: 30 * time.Second, Err: err}
	}
	return &job.Error{Code: job.Unavailable, Message: "the server cannot write the file to its database: try again in a moment", RetryAfter: 5 * time.Second, Err: err}
}

// unreadable is the error of a failed read.
func unreadable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return job.Wrapf(job.Unavailable, err, "the server cannot read files from its database: try again in a moment")
}
