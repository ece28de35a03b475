package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// echoJob is the job of River.
type echoJob struct {
	Input string `json:"input"`
}

func (echoJob) Kind() string { return "echo" }

// echoWorker gives the input back as the recorded output.
type echoWorker struct {
	river.WorkerDefaults[echoJob]
	ran *atomic.Int64
}

func (w *echoWorker) Work(ctx context.Context, j *river.Job[echoJob]) error {
	w.ran.Add(1)
	return river.RecordOutput(ctx, j.Args.Input)
}

// riverPeer is River on PostgreSQL.
type riverPeer struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
	count  atomic.Int64 // jobs run
}

// openRiver makes River's tables and starts its workers.
func openRiver(ctx context.Context, url string, tuned bool) (goLoad, string, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, "", err
	}
	queue := river.QueueConfig{MaxWorkers: 100}
	c := &river.Config{Workers: river.NewWorkers(), Logger: slog.New(slog.DiscardHandler)}
	if tuned {
		config.MaxConns = 32
		queue.MaxWorkers = 1000
		c.FetchCooldown, c.FetchPollInterval = 5*time.Millisecond, 100*time.Millisecond
	}
	c.Queues = map[string]river.QueueConfig{river.QueueDefault: queue}
	p := &riverPeer{}
	if p.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, "", err
	}
	driver := riverpgxv5.New(p.pool)
	m, err := rivermigrate.New(driver, nil)
	if err == nil {
		_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err == nil {
		err = river.AddWorkerSafely(c.Workers, &echoWorker{ran: &p.count})
	}
	if err == nil {
		p.client, err = river.NewClient(driver, c)
	}
	if err == nil {
		err = p.client.Start(ctx)
	}
	if err != nil {
		p.pool.Close()
		return nil, "", err
	}
	return p, moduleVersion("github.com/riverqueue/river"), nil
}

func (p *riverPeer) submit(ctx context.Context, input string, n int) error {
	if n == 1 {
		_, err := p.client.Insert(ctx, echoJob{input}, nil)
		return err
	}
	batch := make([]river.InsertManyParams, n)
	for i := range batch {
		batch[i].Args = echoJob{input}
	}
	_, err := p.client.InsertManyFast(ctx, batch)
	return err
}

func (p *riverPeer) ran() int64 { return p.count.Load() }

func (p *riverPeer) done(ctx context.Context) (n int64, err error) {
	err = p.pool.QueryRow(ctx, "select count(*) from river_job where state = 'completed'").Scan(&n)
	return n, err
}

func (p *riverPeer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime/2)
	defer cancel()
	_ = p.client.StopAndCancel(ctx)
	p.pool.Close()
}
