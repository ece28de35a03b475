package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Connect opens a connection for [Up], [Status] and [Down]. The caller closes it.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler may be in between
	return pgx.ConnectConfig(ctx, config)
}

// Away reports whether an error means that the database cannot be reached or cannot work at the
// moment: it does not run, starts, stops, recovers, is a standby, or has no connection left. Every
// other error, such as a wrong password, stays until somebody mends its cause.
func Away(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		switch said.Code {
		case "57P01", "57P02", "57P03", "57P05", // it stops, starts, or ended an idle connection
			"25006",          // a standby
			"55P03", "57014": // a lock or a statement took too long
			return true
		case "08P01": // what a pooler says of a user or a database that it does not know
			return false
		}
		class := said.Code[:min(2, len(said.Code))]
		return class == "08" || class == "53" || class == "40"
	}
	var operation *net.OpError
	if errors.As(err, &operation) && strings.HasSuffix(operation.Op, " error") {
		return false // an alert of TLS
	}
	var number syscall.Errno
	var network net.Error
	return errors.As(err, &network) || errors.As(err, &number) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}
