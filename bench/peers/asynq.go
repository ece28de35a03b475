package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// asynqPeer is asynq on Redis.
type asynqPeer struct {
	client *asynq.Client
	server *asynq.Server
	look   redis.UniversalClient
	count  atomic.Int64 // jobs run
}

const echoTask = "echo"

// openAsynq starts asynq's workers.
func openAsynq(_ context.Context, url string) (goLoad, string, error) {
	at, err := asynq.ParseRedisURI(url)
	if err != nil {
		return nil, "", err
	}
	p := &asynqPeer{client: asynq.NewClient(at), look: at.MakeRedisClient().(redis.UniversalClient)}
	p.server = asynq.NewServer(at, asynq.Config{Concurrency: submitters, LogLevel: asynq.FatalLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(echoTask, func(_ context.Context, t *asynq.Task) error {
		p.count.Add(1)
		_, err := t.ResultWriter().Write(t.Payload())
		return err
	})
	if err := p.server.Start(mux); err != nil {
		return nil, "", err
	}
	return p, moduleVersion("github.com/hibiken/asynq"), nil
}

func (p *asynqPeer) submit(ctx context.Context, input string, _ int) error {
	_, err := p.client.EnqueueContext(ctx, asynq.NewTask(echoTask, []byte(input)), asynq.Retention(time.Hour))
	return err
}

func (p *asynqPeer) ran() int64 { return p.count.Load() }

// done counts the set in which asynq keeps the results until their retention is over.
func (p *asynqPeer) done(ctx context.Context) (int64, error) {
	return p.look.ZCard(ctx, "asynq:{default}:completed").Result()
}

func (p *asynqPeer) close() {
	p.server.Shutdown()
	_ = p.client.Close()
	_ = p.look.Close()
}
