package postgres

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

var (
	putQueues = &statement{"put_queues", "insert into queues as q (name, paused, " + countNames + ") " + selectUnnest("tfiiiiiiiiii") +
		" on conflict (name) do update set (paused, " + countNames + ") = row (excluded.paused, " + prefixed("excluded.", countNames) + ")" +
		" where (q.paused, " + prefixed("q.", countNames) + ") is distinct from (excluded.paused, " + prefixed("excluded.", countNames) + ")"}
	updateFold = &statement{"update_fold", `with old as (delete from applied where batch = any($3::uuid[]) or at < $4::bigint returning bytes)
		update fold set seq = $1::bigint, last_n = $2::bigint, bytes = fold.bytes + coalesce((select sum(bytes) from old), 0)::bigint`}
	deleteMoves = &statement{"delete_moves", "delete from moves where seq < $1::bigint and at < $2::bigint"}
)

// folding says when a batch folds the moves into the counts of queues.
type folding struct {
	every time.Duration // how often this process does
	keep  time.Duration // moves are kept this long, for processes that do not follow meanwhile
}

var defaultFolding = folding{every: 10 * time.Second, keep: time.Minute}

// keepBatchIDs is how long the ids of the batches of a process are kept that has not deleted them
// itself: it may come back after an outage and ask for them.
const keepBatchIDs = 24 * time.Hour

// fold writes the counts of all queues as of the move seq, which the batch makes, and deletes old
// moves and batch ids. It returns how many of those this process need not remember any more.
func (t *tx) fold(seq int64) (deleted int) {
	s := t.s
	counts := newTable("tfiiiiiiiiii")
	for name, c := range s.mem.Counts() {
		counts.text(name).flag(c.Paused).int(c.Scheduled).int(c.Queued).int(c.Parked).int(c.Running).
			int(c.Succeeded).int(c.Failed).int(c.Cancelled).int(c.Expired).int(c.Retried).int(c.WaitingBytes)
	}
	t.addTable(putQueues, counts)
	old := newTable("u")
	for _, id := range s.outcomes.old() {
		old.uuid(id)
		deleted++
	}
	t.write(updateFold, intParam(seq), intParam(s.lastN), old.columns[0].value(), intParam(t.now.Add(-keepBatchIDs).UnixMicro()))
	t.write(deleteMoves, intParam(seq), intParam(t.now.Add(-s.folding.keep).UnixMicro()))
	return deleted
}

// old returns the ids in the table applied that the process does not need any more.
func (o *outcomes) old() []store.BatchID {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &o.recent
	return slices.Clone(r.stored[:max(len(r.stored)-2*store.MaxUnsynced, 0)])
}

// stored notes that a batch is committed, and that it has deleted the ids of older ones. wrote is
// false for a batch without a row in the table applied.
func (o *outcomes) stored(id store.BatchID, wrote bool, deleted int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &o.recent
	if wrote {
		r.stored = append(r.stored, id)
	}
	r.stored = append(r.stored[:0], r.stored[deleted:]...)
}
