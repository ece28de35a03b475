package sqlite

import (
	"zombiezen.com/go/sqlite"

	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// statements are the statements of the writing connection.
type statements struct {
	begin, commit, rollback *query

	insertRunning, insertWaiting                                         *query
	insertInput, insertResult, insertOutput                              *query
	insertTail, trimTail, loadTail                                       *query
	setProgress, setLeaseUntil                                           *query
	requeueRunning, lease, requestCancel, markDeleted                    *query
	endRunning, endWaiting, retry, setReady                              *query
	job, input, nextReady, due, expired, pruneCandidates, bodyBytes      *query
	parked, firstSuspect, repair, lane                                   *query
	insertPresence, deletePresence, renewJobPresence, renewOwnerPresence *query
	tally, addTally, deleteEmptyTally, output                            *query
	isAbandoned, unfilledPresence, fillPresence                          *query
	insertWithFiles, deleteWithFiles                                     *query
	setRunningBits, deleteRunningBits, loadRunningBits, runningRow       *query
	outputEnd, text, attemptOutput                                       *query
	deleteJob, deleteInput, deleteResult, deleteOutput                   *query
	idempotent, insertIdempotent, deleteIdempotent                       *query
	insertLeftover, oldLeftovers, deleteLeftover                         *query
	insertDeleted, wasDeleted, oldDeleted, deleteDeleted                 *query
	sideRow, firstSideRow                                                *query
	kept, addKept, deleteKept, sideRowLengths, sideRowLength             *query
	putSideRow, deleteSideRow, deleteSideRows                            *query
	loadCounts, saveCounts                                               *query
	loadReady, loadDue                                                   *query
	loadIDSkew, setIDSkew                                                *query
	loadApplied, saveApplied, totalChanges                               *query
	pages, restart                                                       *query
}

func newStatements(conn *sqlite.Conn) *statements {
	q := &statements{}
	for _, p := range []struct {
		into **query
		sql  string
	}{
		{&q.begin, "BEGIN IMMEDIATE"},
		{&q.commit, "COMMIT"},
		{&q.rollback, "ROLLBACK"},

		{&q.insertRunning, `INSERT INTO jobs (n, id, tenant, usr, queue, key, priority, max_attempts, created, run_at, started,
			lease, worker, lease_until, policy, extra, idem, in_bytes, files, lease_for, lease_used, process, state, turn, attempt, revision)
			VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?9,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,4,0,1,1)`},
		{&q.insertWaiting, `INSERT INTO jobs (n, id, tenant, usr, queue, key, priority, state, turn, max_attempts, created, run_at, queue_by,
			policy, extra, idem, in_bytes, files, lane, due, attempt, revision)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,0,1)`},
		{&q.insertInput, "INSERT INTO inputs (n, body) VALUES (?,?)"},
		{&q.insertResult, "INSERT INTO results (n, content_type, body) VALUES (?,?,?)"},
		{&q.insertOutput, "INSERT INTO output (job, seq, attempt, kind, events, total, data) VALUES (?,?,?,?,?,?,?)"},
		{&q.insertTail, "INSERT INTO tail (n, job, seq, total, progress, data) VALUES (?,?,?,?,?,?)"},
		{&q.trimTail, "DELETE FROM tail WHERE n < ?"},
		{&q.loadTail, "SELECT n, job, seq, total, progress, data FROM tail ORDER BY n"},

		{&q.setProgress, "UPDATE jobs SET progress = ? WHERE n = ?"},
		{&q.setLeaseUntil, "UPDATE jobs SET lease_until = ?, lease_used = 1 WHERE n = ?"},
		// Columns of indexes are set only where they change: an unset column writes no page.
		{&q.endRunning, `UPDATE jobs SET state = ?, revision = ?, finished = ?, expires = ?, cursor = ?, out_bytes = ?, progress = ?, failure = ?, code = ?, usage = ?,
			losses = ?, cleared = ?, lease_until = NULL WHERE n = ?`},
		{&q.requeueRunning, `UPDATE jobs SET state = ?, revision = ?, lane = ?, turn = ?, due = ?, attempt = ?, run_at = ?, started = ?,
			cursor = ?, out_bytes = ?, progress = ?, failure = ?, code = ?, usage = ?, losses = ?, cleared = ?, lease_until = NULL WHERE n = ?`},
		{&q.lease, `UPDATE jobs SET state = 4, revision = ?, lane = NULL, attempt = ?, started = ?, lease = ?, worker = ?, lease_until = ?,
			lease_for = ?, lease_used = ?, process = ?,
			progress = NULL, queue_by = NULL WHERE n = ?`},
		{&q.requestCancel, "UPDATE jobs SET cancel_at = ?, revision = ? WHERE n = ?"},
		{&q.markDeleted, "UPDATE jobs SET cancel_at = ?, revision = ?, deleted = 1 WHERE n = ?"},
		{&q.endWaiting, "UPDATE jobs SET state = ?, revision = ?, lane = NULL, due = NULL, queue_by = NULL, finished = ?, expires = ?, failure = ?, code = ? WHERE n = ?"},
		{&q.setReady, "UPDATE jobs SET state = ?, revision = ?, lane = ?, turn = ?, due = NULL WHERE n = ?"},
		{&q.retry, `UPDATE jobs SET state = ?, revision = ?, lane = ?, turn = ?, run_at = ?, queue_by = ?, attempt = 0, losses = 0, cleared = 0, started = NULL, finished = NULL,
			cancel_at = NULL, expires = NULL, progress = NULL, failure = NULL, code = NULL, usage = NULL WHERE n = ?`},
		{&q.tally, tallySQL},
		{&q.addTally, `INSERT INTO tallies (tenant, usr, name, rows, scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, scheduled = scheduled + excluded.scheduled, queued = queued + excluded.queued,
				parked = parked + excluded.parked, running = running + excluded.running, succeeded = succeeded + excluded.succeeded,
				failed = failed + excluded.failed, cancelled = cancelled + excluded.cancelled, expired = expired + excluded.expired,
				retried = retried + excluded.retried, waiting_bytes = waiting_bytes + excluded.waiting_bytes`},
		{&q.deleteEmptyTally, "DELETE FROM tallies WHERE tenant = ? AND usr = ? AND name = ? AND rows <= 0"},
		{&q.output, outputSQL},
		{&q.insertPresence, "INSERT OR REPLACE INTO presence (id, n, tenant, usr, after, until) VALUES (?, ?, ?, ?, ?, ?)"},
		{&q.deletePresence, "DELETE FROM presence WHERE id = ?"},
		{&q.renewJobPresence, "UPDATE presence SET until = ? + after WHERE id = ?"},
		{&q.renewOwnerPresence, "UPDATE presence SET until = ? + after WHERE tenant = ? AND usr = ?"},
		{&q.isAbandoned, "SELECT 1 FROM presence WHERE id = ? AND until <= ?"},
		{&q.unfilledPresence, "SELECT id, policy FROM presence JOIN jobs USING (n, id) WHERE after = 0"},
		{&q.fillPresence, "UPDATE presence SET after = ?, until = ? WHERE id = ?"},
		{&q.insertWithFiles, "INSERT INTO with_files (n, id) VALUES (?,?)"},
		{&q.deleteWithFiles, "DELETE FROM with_files WHERE n = ?"},
		{&q.setRunningBits, "INSERT OR REPLACE INTO running (n64, bits) VALUES (?,?)"},
		{&q.deleteRunningBits, "DELETE FROM running WHERE n64 = ?"},
		{&q.repair, `UPDATE jobs SET state = ?, revision = ?, lane = NULL, due = NULL, queue_by = NULL, lease_until = NULL, finished = ?, expires = ?,
			cursor = ?, out_bytes = ?, progress = ?, failure = ?, code = ?, usage = NULL, policy = ?, extra = ? WHERE n = ?`},

		{&q.job, "SELECT " + jobColumns + ", idem, deleted FROM jobs WHERE tenant = ? AND usr = ? AND id = ?"},
		{&q.input, "SELECT body FROM inputs WHERE n = ?"},
		{&q.nextReady, "SELECT " + jobColumns + ", turn, idem FROM jobs WHERE queue = ? AND lane = ? ORDER BY turn, n LIMIT ?"},
		{&q.parked, "SELECT n, priority, id, revision, usr, extra, key, tenant, turn FROM jobs WHERE queue = ? AND lane = ? ORDER BY turn, n LIMIT ?"},
		{&q.firstSuspect, `SELECT n, priority, id, revision, key, tenant, run_at, usr, extra, lane FROM jobs WHERE n =
			(SELECT n FROM jobs WHERE queue = ? AND lane >= '!' AND lane < '"' ORDER BY run_at, n LIMIT 1)`},
		{&q.lane, "SELECT lane FROM jobs WHERE n = ?"},
		{&q.due, "SELECT " + jobColumns + " FROM jobs WHERE due <= ? ORDER BY due LIMIT ?"},
		{&q.expired, "SELECT " + jobColumns + " FROM jobs WHERE queue_by <= ? ORDER BY queue_by LIMIT ?"},
		{&q.pruneCandidates, "SELECT n, tenant, usr, state, expires, idem, created, out_bytes, id, files, in_bytes, extra FROM jobs WHERE n > ? ORDER BY n LIMIT ?"},
		{&q.bodyBytes, `SELECT coalesce((SELECT length(body) FROM inputs WHERE n = ?1), 0) + coalesce((SELECT length(body) FROM results WHERE n = ?1), 0)`},
		{&q.outputEnd, outputEndSQL},
		{&q.text, textSQL},
		{&q.attemptOutput, "SELECT kind, data, seq FROM output WHERE job = ? AND seq > ? AND kind <= 3 ORDER BY seq"},

		{&q.deleteJob, "DELETE FROM jobs WHERE n = ?"},
		{&q.deleteInput, "DELETE FROM inputs WHERE n = ?"},
		{&q.deleteResult, "DELETE FROM results WHERE n = ?"},
		{&q.deleteOutput, "DELETE FROM output WHERE job = ?"},

		{&q.idempotent, "SELECT job, hash, until FROM idempotency WHERE tenant = ? AND usr = ? AND key = ?"},
		{&q.insertIdempotent, "INSERT INTO idempotency (tenant, usr, key, job, hash, until) VALUES (?,?,?,?,?,?)"},
		{&q.deleteIdempotent, "DELETE FROM idempotency WHERE tenant = ? AND usr = ? AND key = ?"},
		{&q.insertLeftover, "INSERT INTO leftovers (until, tenant, usr, key) VALUES (?,?,?,?)"},
		{&q.oldLeftovers, "SELECT rowid, tenant, usr, key FROM leftovers WHERE until <= ? ORDER BY until LIMIT ?"},
		{&q.deleteLeftover, "DELETE FROM leftovers WHERE rowid = ?"},
		{&q.insertDeleted, "INSERT OR REPLACE INTO deleted (id, tenant, usr, until) VALUES (?,?,?,?)"},
		{&q.wasDeleted, "SELECT tenant, usr FROM deleted WHERE id = ?"},
		{&q.oldDeleted, "SELECT id, tenant, usr FROM deleted WHERE until <= ? ORDER BY until LIMIT ?"},
		{&q.deleteDeleted, "DELETE FROM deleted WHERE id = ?"},

		{&q.kept, "SELECT bytes FROM owners WHERE tenant = ? AND usr = ?"},
		{&q.addKept, "INSERT INTO owners (tenant, usr, bytes) VALUES (?,?,?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"},
		{&q.deleteKept, "DELETE FROM owners WHERE tenant = ? AND usr = ? AND bytes <= 0"},
		{&q.sideRowLength, "SELECT " + plainLength + " FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id = ?"},
		{&q.sideRowLengths, "SELECT count(*), coalesce(sum(" + plainLength + "), 0) FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ?"},
		{&q.sideRow, "SELECT body FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id = ?"},
		{&q.firstSideRow, "SELECT body, id FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? ORDER BY id LIMIT 1"},
		{&q.putSideRow, "INSERT OR REPLACE INTO records (tenant, usr, kind, parent, id, body) VALUES (?,?,?,?,?,?)"},
		{&q.deleteSideRow, "DELETE FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id = ?"},
		{&q.deleteSideRows, "DELETE FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ?"},

		{&q.loadIDSkew, "SELECT apart FROM created"},
		{&q.setIDSkew, "UPDATE created SET apart = ?"},
		{&q.loadApplied, "SELECT batch, last_job, last_tail FROM applied"},
		{&q.saveApplied, "UPDATE applied SET batch = ?, last_job = ?, last_tail = ?"},
		{&q.totalChanges, "SELECT total_changes()"},
		{&q.pages, "PRAGMA page_count"},
		{&q.restart, "PRAGMA wal_checkpoint(RESTART)"},
		{&q.loadCounts, "SELECT name, scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes, paused FROM queues"},
		{&q.saveCounts, `INSERT OR REPLACE INTO queues (name, scheduled, queued, parked, running, succeeded, failed, cancelled, expired, retried, waiting_bytes, paused)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`},
		{&q.loadRunningBits, "SELECT n64, bits FROM running"},
		{&q.runningRow, "SELECT " + jobColumns + ", lease, worker, lease_until, deleted, idem, lease_for, lease_used, process FROM jobs WHERE n = ? AND state = 4"},
		{&q.loadReady, "SELECT queue, lane, turn, key, priority, run_at FROM jobs WHERE lane IS NOT NULL"},
		{&q.loadDue, "SELECT queue, key, tenant FROM jobs WHERE due IS NOT NULL"},
	} {
		*p.into = newQuery(conn, p.sql)
	}
	return q
}

// plainLength is the length of a body that may be sealed, without the encryption.
var plainLength = sealed.LengthSQL("body", "length(body)", "x'%x'")

// textSQL reads the text entries and the blocks since the entry that began the last attempt.
const textSQL = `SELECT kind, data, seq FROM output WHERE job = ?1 AND kind <= 1
	AND seq > coalesce((SELECT max(seq) FROM output WHERE job = ?1 AND kind = 5), 0) ORDER BY seq`

// outputEndSQL reads the number of the last entry, and the bytes of output up to it.
const outputEndSQL = "SELECT seq, total FROM output WHERE job = ? ORDER BY seq DESC LIMIT 1"
