package postgres

import (
	"context"
	"time"
)

// A process sends all writes of a batch at once, and the server executes each as it arrives. If the
// machine of the process dies between two of them, the server waits for the next one, perhaps for
// hours, and has the lock of all moves. The timeouts of transactions do not count then: for the
// server the client is about to speak. So a process that waits for the lock in vain ends the
// transaction of a holder that has been silent for too long.

// maxSilent is how long the holder of the lock of all moves may be silent between two statements
// while another process waits. The largest batch takes less, also over a slow network.
const maxSilent = 20 * time.Second

var endSilentHolder = &statement{"end_silent_holder", `select pg_terminate_backend(pid) from pg_locks l join pg_stat_activity a using (pid)
	where l.locktype = 'advisory' and l.granted and l.classid::bigint = $1::bigint and l.objid = 'moves'::regclass::oid and l.objsubid = 2
		and l.database = (select oid from pg_database where datname = current_database()) and a.pid <> pg_backend_pid()
		and a.usename = current_user and a.wait_event = 'ClientRead' and a.state_change < clock_timestamp() - $2::bigint * interval '1 millisecond'`}

// endSilentHolder ends the transaction that has the lock of all moves, if its client is silent.
func (s *Store) endSilentHolder(ctx context.Context) {
	if s.writer == nil {
		return
	}
	ended := false
	f := flush{w: s.writer}
	f.add(endSilentHolder, func(r *record) { ended = r.flag() }, intParam(movesLock), intParam(s.maxSilent.Milliseconds()))
	if err := f.run(ctx); err != nil {
		s.noteLost(err)
		return
	}
	if ended {
		s.log.Warn("a process held the lock of all moves and was silent: its transaction was ended")
	}
}
