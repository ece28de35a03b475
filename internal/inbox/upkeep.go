package inbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// Records of refused rows are kept for a week, and the last maxRefused of them.
	maxRefused = 10_000

	pruneRefused = `delete from inbox_refused where n in (select n from inbox_refused
		where refused < clock_timestamp() - interval '7 days' or n <= (select n from inbox_refused order by n desc offset $1::integer limit 1)
		order by n limit 5000)`

	// A row may come before the servers that have its queue.
	unknownQueues = `select queue from inbox where queue <> all ($1::text[]) and at < clock_timestamp() - interval '10 seconds' group by queue order by min(n) limit 5`

	// maxCounted bounds what a scrape counts.
	maxCounted = 100_000

	readStats = `select (select count(*) from (select from inbox limit $1::integer) counted),
		coalesce((select extract(epoch from clock_timestamp() - at) from inbox order by n limit 1), 0)::double precision`
)

// upkeep removes old records of refused rows, and logs which rows wait for a server with their
// queue.
func (x *Inbox) upkeep(ctx context.Context) error {
	queues, err := x.strangers(ctx)
	if err != nil {
		return err
	}
	for _, queue := range queues {
		x.config.Log.Warn("rows of the inbox wait for a server that has their queue", "queue", queue)
	}
	return pgx.BeginFunc(ctx, x.config.DB, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, pruneRefused, maxRefused)
		return err
	})
}

// strangers lists queues of rows that this process does not have.
func (x *Inbox) strangers(ctx context.Context) ([]string, error) {
	rows, err := x.config.DB.Query(ctx, unknownQueues, x.config.Queues)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Stats are numbers of the inbox.
type Stats struct {
	Rows    int           // that are no jobs yet; at most 100,000 are counted
	Oldest  time.Duration // for how long the first of them has waited
	Refused int64         // rows that this process has refused
}

// Stats reads the numbers.
func (x *Inbox) Stats(ctx context.Context) (s Stats, err error) {
	s.Refused = x.refused.Load()
	rows, err := x.config.DB.Query(ctx, readStats, maxCounted)
	if err != nil {
		return s, err
	}
	var age float64
	_, err = pgx.ForEachRow(rows, []any{&s.Rows, &age}, func() error { return nil })
	s.Oldest = time.Duration(max(age, 0) * float64(time.Second))
	return s, err
}
