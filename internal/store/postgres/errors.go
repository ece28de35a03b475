package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// codeOf returns the SQLSTATE of an error; "" if the server did not send it.
func codeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// endsConnection reports whether the server ended the connection with the error.
func endsConnection(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC")
}

// runsAgain reports whether a transaction that failed with the error may succeed when it runs
// again: it met another transaction.
func runsAgain(err error) bool {
	switch codeOf(err) {
	case "40001", // serialization failure
		"40P01", // deadlock
		"55P03": // lock timeout
		return true
	}
	return false
}

// notCommitted wraps an error of a transaction that was certainly not committed in the errors
// that the caller of Apply checks for.
func notCommitted(err error) error {
	code := codeOf(err)
	switch {
	case code == "53100": // disk full
		return fmt.Errorf("%w: %w: %w", err, store.ErrFull, store.ErrNotCommitted)
	case code == "XX001", code == "XX002": // corrupted data, corrupted index
		return fmt.Errorf("%w: %w: %w", err, store.ErrDamaged, store.ErrNotCommitted)
	case strings.HasPrefix(code, "22"), // bad data, such as a text with a NUL
		strings.HasPrefix(code, "23"), // a constraint
		strings.HasPrefix(code, "54"): // larger than Postgres can store
		return fmt.Errorf("%w: %w: %w", err, store.ErrData, store.ErrNotCommitted)
	}
	return fmt.Errorf("%w: %w", err, store.ErrNotCommitted)
}
