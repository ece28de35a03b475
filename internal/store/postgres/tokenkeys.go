package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// MaxTokenKeys is how many keys of tokens are kept: the one that seals, and those before it.
const MaxTokenKeys = 4

// Querier runs queries: a connection, a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// TokenKeys returns the keys of the tokens of pages, oldest first. The last one seals. In a new
// database there is none.
func TokenKeys(ctx context.Context, db Querier) ([][]byte, error) {
	rows, err := db.Query(ctx, "select key from token_keys order by id", pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]byte])
}

// FirstTokenKey stores the first key, unless there is one. Several processes may call it at
// once. It returns all keys.
func FirstTokenKey(ctx context.Context, db Beginner, key []byte) (keys [][]byte, err error) {
	return changeTokenKeys(ctx, db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertTokenKey+" where not exists (select from token_keys)", pgx.QueryExecModeExec, key)
		return err
	})
}

// RotateTokenKey adds a key, which seals tokens from then on. The last three keys before it stay,
// unless forget is true. It returns all keys.
func RotateTokenKey(ctx context.Context, db Beginner, key []byte, forget bool) (keys [][]byte, err error) {
	keep := MaxTokenKeys
	if forget {
		keep = 1
	}
	return changeTokenKeys(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertTokenKey, pgx.QueryExecModeExec, key); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "delete from token_keys where id not in (select id from token_keys order by id desc limit $1::bigint)", pgx.QueryExecModeExec, keep)
		return err
	})
}

const insertTokenKey = "insert into token_keys (key, created) select $1::bytea, (extract(epoch from clock_timestamp()) * 1000000)::bigint"

// changeTokenKeys calls change while no other process changes the keys, and returns the keys
// after it.
func changeTokenKeys(ctx context.Context, db Beginner, change func(pgx.Tx) error) (keys [][]byte, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, "lock table token_keys in share row exclusive mode", pgx.QueryExecModeExec); err == nil {
			err = change(tx)
		}
		if err == nil {
			keys, err = TokenKeys(ctx, tx)
		}
		return err
	})
	return keys, err
}
