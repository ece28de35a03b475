package meanwhile_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

// transaction is a transaction of some driver.
type transaction struct {
	meanwhile.Tx
	commit, rollback func() error
}

func beginSQL(t *testing.T, url string) transaction {
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return transaction{meanwhile.SQLTx(tx), tx.Commit, tx.Rollback}
}

func beginPgx(t *testing.T, url string) transaction {
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return transaction{meanwhile.PgxTx(tx), func() error { return tx.Commit(t.Context()) }, func() error { return tx.Rollback(t.Context()) }}
}

func TestSubmitTx(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t).Schema(t)
	s, err := meanwhile.Open(t.Context(), meanwhile.Config{Data: t.TempDir(), Database: db.URL()})
	if err != nil {
		t.Fatal(err)
	}
	double := meanwhile.Handle(s, "double", func(_ context.Context, _ *meanwhile.Task, n int) (int, error) { return 2 * n, nil })
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	for name, begin := range map[string]func(*testing.T, string) transaction{"database/sql": beginSQL, "pgx": beginPgx} {
		t.Run(name, func(t *testing.T) {
			submit := func(n int) (id string, tx transaction) {
				tx = begin(t, db.URL())
				for _, sql := range []string{"create table if not exists orders (n integer)", "set local search_path = pg_catalog"} {
					if err := tx.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				// What no server takes is refused, and leaves the transaction usable.
				if _, err := s.SubmitTx(t.Context(), tx, meanwhile.Submission{Queue: "single", Input: n}); client.CodeOf(err) != client.CodeUnknownQueue {
					t.Errorf("an unknown queue: %v", err)
				}
				if _, err := s.SubmitTx(t.Context(), tx, double.Submission(n, meanwhile.Priority(10))); client.CodeOf(err) != client.CodeInvalid {
					t.Errorf("the priority 10: %v", err)
				}
				id, err := s.SubmitTxAs(t.Context(), tx, "ann", double.Submission(n, meanwhile.Key("k"), meanwhile.Metadata("order", "9")))
				if err != nil {
					t.Fatal(err)
				}
				return id, tx
			}
			none, tx := submit(1)
			if err := tx.rollback(); err != nil {
				t.Fatal(err)
			}
			id, tx := submit(4)
			if _, err := s.AsUser("ann").Get(t.Context(), id); client.CodeOf(err) != client.CodeNotFound {
				t.Errorf("before the commit: %v", err)
			}
			if err := tx.commit(); err != nil {
				t.Fatal(err)
			}
			anns := double.With(s.AsUser("ann"))
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
				if _, err = anns.Wait(t.Context(), id); client.CodeOf(err) != client.CodeNotFound {
					break
				}
			}
			if got, err := anns.Result(t.Context(), id); err != nil || got != 8 {
				t.Errorf("%d, %v", got, err)
			}
			if j, err := s.AsUser("ann").Get(t.Context(), id); err != nil || j.Key != "k" || j.Metadata["order"] != "9" {
				t.Errorf("%+v, %v", j, err)
			}
			if _, err := s.AsUser("ann").Get(t.Context(), none); client.CodeOf(err) != client.CodeNotFound {
				t.Errorf("after the rollback: %v", err)
			}
		})
	}
}

func TestSubmitTxNeedsADatabase(t *testing.T) {
	t.Parallel()
	s, err := meanwhile.Open(t.Context(), meanwhile.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.SubmitTx(t.Context(), meanwhile.SQLTx(nil), meanwhile.Submission{Queue: "q", Input: 1})
	if e, ok := errors.AsType[*meanwhile.Error](err); !ok || e.Code != client.CodeUnsupported {
		t.Errorf("%v", err)
	}
}
