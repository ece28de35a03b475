package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool is a pool of connections, for what is kept in the database besides the jobs.
type Pool = pgxpool.Pool

// NewPool makes a pool of at most size connections. It makes them when they are needed. The
// caller closes it. For unprepared see [Options].
func NewPool(ctx context.Context, conninfo string, size int, unprepared bool) (*Pool, error) {
	config, err := pgxpool.ParseConfig(conninfo)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(size)
	config.PingTimeout = patience
	if unprepared {
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return pgxpool.NewWithConfig(ctx, config)
}
