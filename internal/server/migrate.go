package server

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
)

// Migration is a step of the schema of the database.
type Migration = postgres.Migration

// MigrateUp brings the schema of the database up to date and returns what it applied, also with
// an error.
func MigrateUp(ctx context.Context, cfg config.Config) (applied []Migration, err error) {
	err = withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		applied, err = postgres.Up(ctx, db)
		return err
	})
	return applied, databaseError(cfg, err)
}

// MigrationStatus lists the steps of the schema: those that are applied, then those that are
// pending. unusable says why this version of the program cannot use the database; nil if it can.
func MigrationStatus(ctx context.Context, cfg config.Config) (list []Migration, unusable, err error) {
	err = withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		list, err = postgres.Status(ctx, db)
		return err
	})
	return list, databaseError(cfg, postgres.Usable(list)), databaseError(cfg, err)
}

// MigrateDown takes back the steps after the one with the number to, the newest first, and returns
// those that it took back, also with an error.
func MigrateDown(ctx context.Context, cfg config.Config, to int) (undone []Migration, err error) {
	err = withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		undone, err = postgres.Down(ctx, db, to)
		return err
	})
	return undone, databaseError(cfg, err)
}

// withDatabase calls use with a connection to the database.
func withDatabase(ctx context.Context, cfg config.Config, use func(postgres.Beginner) error) error {
	conn, err := postgres.Connect(ctx, connectionURL(cfg))
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	return use(conn)
}
