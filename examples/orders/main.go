// Orders places orders. An order and the job that sends its mail exist both or neither, because
// they are inserted in one transaction: of database/sql, or of pgx.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx" of database/sql

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/client"
)

// Mail is the input of a job.
type Mail struct {
	Order int64 `json:"order"`
}

func sendMail(_ context.Context, _ *meanwhile.Task, m Mail) (string, error) {
	return fmt.Sprintf("a mail for the order %d", m.Order), nil
}

var errUnpaid = errors.New("the payment failed: there is no order, and no mail is sent")

// shop has what placing an order needs.
type shop struct {
	server *meanwhile.Server
	mails  *meanwhile.Jobs[Mail, string]
}

// placeWithSQL places an order with database/sql and returns the id of its job.
func (s *shop) placeWithSQL(ctx context.Context, db *sql.DB, item string, paid bool) (id string, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	var m Mail
	if err := tx.QueryRowContext(ctx, "insert into orders (item) values ($1) returning id", item).Scan(&m.Order); err != nil {
		return "", err
	}
	if id, err = s.server.SubmitTx(ctx, meanwhile.SQLTx(tx), s.mails.Submission(m, meanwhile.Key(item))); err != nil {
		return "", err
	}
	if !paid {
		return "", errUnpaid
	}
	return id, tx.Commit()
}

// placeWithPgx places an order with pgx and returns the id of its job.
func (s *shop) placeWithPgx(ctx context.Context, db *pgx.Conn, item string, paid bool) (id string, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var m Mail
		err := tx.QueryRow(ctx, "insert into orders (item) values ($1) returning id", item).Scan(&m.Order)
		if err != nil {
			return err
		}
		if id, err = s.server.SubmitTx(ctx, meanwhile.PgxTx(tx), s.mails.Submission(m, meanwhile.Key(item))); err != nil {
			return err
		}
		if !paid {
			return errUnpaid
		}
		return nil
	})
	return id, err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], "./data"); err != nil {
		log.Fatal(err)
	}
}

// run runs a server on a database, and places orders with both packages.
func run(ctx context.Context, database, data string) error {
	server, err := meanwhile.Open(ctx, meanwhile.Config{Data: data, Database: database})
	if err != nil {
		return err
	}
	s := &shop{server, meanwhile.Handle(server, "mail", sendMail)}
	ctx, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()

	err = s.placeAll(ctx, database)
	stop()
	return errors.Join(err, <-stopped)
}

func (s *shop) placeAll(ctx context.Context, database string) error {
	db, err := sql.Open("pgx", database)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, place := range []func(paid bool) (string, error){
		func(paid bool) (string, error) { return s.placeWithSQL(ctx, db, "chair", paid) },
		func(paid bool) (string, error) { return s.placeWithPgx(ctx, conn, "table", paid) },
	} {
		_, err := place(false)
		fmt.Println(err)
		id, err := place(true)
		if err != nil {
			return err
		}
		mail, err := s.mails.Wait(ctx, id)
		for client.CodeOf(err) == client.CodeNotFound { // committed, and not taken from the inbox yet
			time.Sleep(20 * time.Millisecond)
			mail, err = s.mails.Wait(ctx, id)
		}
		if err != nil {
			return err
		}
		fmt.Println(mail)
	}
	return nil
}
