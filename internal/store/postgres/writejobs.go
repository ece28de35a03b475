package postgres

import (
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// The columns of jobs, in groups. The letters are those of newTable.
const (
	// fixedNames never change, but for a damaged row.
	fixedNames   = "id, tenant, usr, queue, key, resource, tally, idem, priority, max_attempts, created, in_bytes, files, policy, extra"
	fixedLetters = "utttttttiiiiibb"
	// movedNames change with the state, and are in both tables.
	movedNames   = "state, attempt, losses, cleared, revision, run_at, started, cancel_at, cursor, out_bytes, bytes, progress, failure, code, usage"
	movedLetters = "iiiiiiiiiiibbtb"
	// waitNames and leaseNames are of unfinished jobs only.
	waitNames    = "turn, lane, due, queue_by"
	waitLetters  = "itii"
	leaseNames   = "deleted, token, process, worker, lease_for, lease_until, lease_used, attempt_at, output_at, start_cursor, earlier_bytes, has_output"
	leaseLetters = "fuutiifiiiif"
	endNames     = "finished, expires"
	endLetters   = "ii"
	// outputNames change with output, and usedNames with a renewal.
	outputNames   = "cursor, out_bytes, progress, lease_used, output_at, has_output"
	outputLetters = "iibfif"
	usedNames     = "lease_until, lease_used"
	usedLetters   = "if"
)

var (
	insertJobs = &statement{"insert_jobs", "insert into jobs (n, " + fixedNames + ", " + movedNames + ", " + waitNames + ", " + leaseNames + ") " +
		selectUnnest("i"+fixedLetters+movedLetters+waitLetters+leaseLetters)}
	insertEnded = &statement{"insert_ended", "insert into ended (n, " + fixedNames + ", " + movedNames + ", " + endNames + ") " +
		selectUnnest("i"+fixedLetters+movedLetters+endLetters)}
	updateJobs   = &statement{"update_jobs", updateSQL(movedNames+", "+waitNames+", "+leaseNames, movedLetters+waitLetters+leaseLetters, "", "")}
	updateOutput = &statement{"update_output", updateSQL(outputNames, outputLetters, "", "")}
	updateLeases = &statement{"update_leases", updateSQL(usedNames, usedLetters, "", "")}
	endJobs      = &statement{"end_jobs", moveSQL("jobs", "ended", endNames, endLetters)}
	retryJobs    = &statement{"retry_jobs", moveSQL("ended", "jobs", waitNames+", "+leaseNames, waitLetters+leaseLetters)}
	deleteJobs   = &statement{"delete_jobs", "delete from jobs where n = any($1::bigint[])"}
	deleteEnded  = &statement{"delete_ended", "delete from ended where n = any($1::bigint[])"}

	insertInputs    = &statement{"insert_inputs", "insert into inputs (n, body) " + selectUnnest("ib")}
	insertResults   = &statement{"insert_results", "insert into results (n, content_type, body) " + selectUnnest("itb")}
	insertWithFiles = &statement{"insert_with_files", "insert into with_files (n, id) " + selectUnnest("iu")}
	deleteInputs    = &statement{"delete_inputs", "delete from inputs where n = any($1::bigint[])"}
	deleteResults   = &statement{"delete_results", "delete from results where n = any($1::bigint[])"}
	deleteOutput    = &statement{"delete_output", "delete from output where n = any($1::bigint[])"}
	deleteWithFiles = &statement{"delete_with_files", "delete from with_files where n = any($1::bigint[])"}
)

// unnest returns the call of unnest for a table with these columns.
func unnest(letters string) string {
	types := map[rune]string{'i': "bigint", 't': "text", 'b': "bytea", 'u': "uuid", 'f': "boolean"}
	var list []string
	for i, c := range letters {
		list = append(list, "$"+strconv.Itoa(i+1)+"::"+types[c]+"[]")
	}
	return "unnest(" + strings.Join(list, ", ") + ")"
}

func selectUnnest(letters string) string { return "select * from " + unnest(letters) }

// prefixed puts a prefix before each name of a list.
func prefixed(prefix, names string) string {
	return prefix + strings.ReplaceAll(names, ", ", ", "+prefix)
}

// updateSQL updates columns of unfinished jobs.
// more are columns that are not set, and moreLetters their letters.
func updateSQL(names, letters, more, moreLetters string) string {
	var sets []string
	for _, name := range strings.Split(names, ", ") {
		sets = append(sets, name+" = u."+name)
	}
	return "update jobs set " + strings.Join(sets, ", ") + " from " + unnest("i"+letters+moreLetters) + " u (n, " + names + more + ") where jobs.n = u.n and jobs.n = any($1::bigint[])"
}

// moveSQL moves jobs from one table to the other. It copies the columns that do not change.
func moveSQL(from, to, names, letters string) string {
	changed := movedNames + ", " + names
	return "with moved as (delete from " + from + " j using " + unnest("i"+movedLetters+letters) + " u (n, " + changed + ") where j.n = u.n and j.n = any($1::bigint[]) " +
		"returning u.n, " + prefixed("j.", fixedNames) + ", " + prefixed("u.", changed) + ") " +
		"insert into " + to + " (n, " + fixedNames + ", " + changed + ") select * from moved"
}

// ctidsSQL is the condition of the rows of a table whose columns have the values of an unnest. Each
// row is looked up in the index of the columns, whatever the statistics say.
func ctidsSQL(table, names, letters string) string {
	list := strings.Split(names, ", ")
	for i, name := range list {
		list[i] = name + " = u." + name
	}
	return "ctid = any(array(select x.ctid from " + unnest(letters) + " u (" + names + ") cross join lateral " +
		"(select ctid from " + table + " t where t." + strings.Join(list, " and t.") + " offset 0) x))"
}

// deleteSQL deletes the rows of ctidsSQL.
func deleteSQL(table, names, letters string) string {
	return "delete from " + table + " where " + ctidsSQL(table, names, letters)
}

func addFixed(t *table, e *entry) error {
	j := e.job
	extra, err := e.extra, error(nil)
	if extra == nil {
		extra, err = codec.EncodeExtra(&j.Job)
	}
	t.uuid(j.ID).text(j.Owner.Tenant).text(j.Owner.User).text(j.Queue).text(j.Job.Key).text(j.Resource).
		textOrNull(j.Tally, j.Tally != "").textOrNull(j.IdempotencyKey, j.IdempotencyKey != "").
		int(int64(j.Priority)).int(int64(j.MaxAttempts)).time(j.CreatedAt).int(j.InputBytes).int(int64(j.FileCount)).
		blob(codec.EncodePolicy(j.Policy)).bytes(extra)
	return err
}

func addMoved(t *table, e *entry) {
	j := e.job
	t.int(int64(j.State)).int(int64(j.Attempt)).int(int64(j.Losses)).int(int64(j.Cleared)).int(j.Revision).
		time(j.RunAt).time(j.StartedAt).time(j.CancelRequestedAt).int(j.Cursor).int(j.OutputBytes).int(e.bytes).
		bytes(codec.EncodeProgress(j.Progress)).bytes(codec.EncodeFailure(j.Failure))
	if j.Failure == nil {
		t.null()
	} else {
		t.text(j.Failure.Code)
	}
	t.bytes(j.Usage)
}

func addWait(t *table, e *entry) {
	due := time.Time{}
	if e.job.State == job.Scheduled {
		due = e.job.RunAt
	}
	t.int(e.job.Turn).textOrNull(e.lane, e.queued).time(due).time(e.queueBy)
}

func addLease(t *table, j *ops.Job) {
	l := &j.Lease
	t.flag(j.Deleted).uuidOrNull(l.Token)
	if j.State == job.Running { // an unknown process is one too
		t.uuid(l.Process)
	} else {
		t.null()
	}
	t.text(l.Worker).int(int64(l.For / time.Millisecond)).
		int(microsOrZero(l.Until)).flag(l.Used).int(microsOrZero(l.AttemptStartedAt)).time(l.LastOutputAt).
		int(l.StartCursor).int(l.EarlierOutputBytes).flag(l.HasOutput)
}

func microsOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// jobWrites are the rows of jobs to write, one table a statement.
type jobWrites struct {
	removed, removedEnded               *table // from their tables
	gone, goneWithFiles                 *table // with their bodies
	inserts, ends, insertEnds, retries  *table
	knownEnds, knownOutput, knownLeases *table
	updates, output, leases             *table
	inputs, results, withFiles          *table
	ring                                *sealed.Ring
}

// writeJobs adds the writes of all changed jobs.
func (t *tx) writeJobs() {
	if len(t.dirty) == 0 {
		return
	}
	w := jobWrites{
		removed: newTable("i"), removedEnded: newTable("i"), gone: newTable("i"), goneWithFiles: newTable("i"),
		inserts: newTable("i" + fixedLetters + movedLetters + waitLetters + leaseLetters),
		ends:    newTable("i" + movedLetters + endLetters), insertEnds: newTable("i" + fixedLetters + movedLetters + endLetters),
		retries: newTable("i" + movedLetters + waitLetters + leaseLetters), updates: newTable("i" + movedLetters + waitLetters + leaseLetters),
		output: newTable("i" + outputLetters), leases: newTable("i" + usedLetters),
		knownEnds:   newTable("i" + movedLetters + endLetters + knownLetters),
		knownOutput: newTable("i" + outputLetters + knownLetters), knownLeases: newTable("i" + usedLetters + knownLetters),
		inputs: newTable("ib"), results: newTable("itb"), withFiles: newTable("iu"), ring: t.s.ring,
	}
	for _, e := range t.dirty {
		if err := w.add(e); err != nil && t.failed == nil {
			t.failed = err
		}
		e.stored, e.change, e.listed, e.isNew, e.result, e.replace = e.place, 0, false, false, nil, false
	}
	t.dirty = t.dirty[:0]
	// What is removed makes room for what is inserted: ids and tokens are unique.
	t.addTable(deleteJobs, w.removed)
	t.addTable(deleteEnded, w.removedEnded)
	t.addTable(deleteInputs, w.gone)
	t.addTable(deleteResults, w.gone)
	t.addTable(deleteOutput, w.gone)
	t.addTable(deleteWithFiles, w.goneWithFiles)
	t.addTable(endJobs, w.ends)
	t.addTable(endKnown, w.knownEnds)
	t.addTable(updateJobs, w.updates)
	t.addTable(updateOutput, w.output)
	// After a job's output its row is not what was known. Its lease comes first.
	t.addTable(updateKnownLeases, w.knownLeases)
	t.addTable(updateKnownOutput, w.knownOutput)
	t.addTable(updateLeases, w.leases)
	t.addTable(retryJobs, w.retries)
	t.addTable(insertJobs, w.inserts)
	t.addTable(insertEnded, w.insertEnds)
	t.addTable(insertInputs, w.inputs)
	t.addTable(insertResults, w.results)
	t.addTable(insertWithFiles, w.withFiles)
}

// add adds the writes of one job.
func (w *jobWrites) add(e *entry) (err error) {
	j := e.job
	if e.place == nowhere || e.replace {
		w.remove(e)
		if e.place == nowhere {
			return nil
		}
	}
	switch {
	case e.place == ended && (e.replace || e.stored == nowhere):
		err = addFixed(w.insertEnds.int(j.N), e)
		addMoved(w.insertEnds, e)
		w.insertEnds.time(j.FinishedAt).time(j.ExpiresAt)
	case e.stored == nowhere:
		err = addFixed(w.inserts.int(j.N), e)
		addMoved(w.inserts, e)
		addWait(w.inserts, e)
		addLease(w.inserts, j)
	case e.place == ended && e.stored == unfinished && e.known != knownRow{}:
		addMoved(w.knownEnds.int(j.N), e)
		w.knownEnds.time(j.FinishedAt).time(j.ExpiresAt).known(e)
	case e.place == ended && e.stored == unfinished:
		addMoved(w.ends.int(j.N), e)
		w.ends.time(j.FinishedAt).time(j.ExpiresAt)
	case e.place == unfinished && e.stored == ended:
		addMoved(w.retries.int(j.N), e)
		addWait(w.retries, e)
		addLease(w.retries, j) // the same batch may claim the job
	case e.place == unfinished:
		w.update(e)
	}
	if e.isNew {
		w.inputs.int(j.N).blob(w.ring.Seal(sealed.Input(j.ID), e.input))
		if j.FileCount > 0 {
			w.withFiles.int(j.N).uuid(j.ID)
		}
	}
	if e.result != nil {
		w.results.int(j.N).text(e.result.ContentType).blob(w.ring.Seal(sealed.Result(j.ID), e.result.Body))
	}
	return err
}

// remove deletes a job's row, and its bodies unless another row replaces it.
func (w *jobWrites) remove(e *entry) {
	switch n := e.job.N; e.stored {
	case unfinished:
		w.removed.int(n)
	case ended:
		w.removedEnded.int(n)
	}
	if e.place == nowhere && e.stored != nowhere {
		w.gone.int(e.job.N)
		if e.job.FileCount > 0 {
			w.goneWithFiles.int(e.job.N)
		}
	}
}

// update writes the columns of an unfinished job that have changed.
func (w *jobWrites) update(e *entry) {
	j, l := e.job, &e.job.Lease
	switch {
	case e.change&changedState != 0:
		addMoved(w.updates.int(j.N), e)
		addWait(w.updates, e)
		addLease(w.updates, j)
		return
	case e.change&changedOutput != 0:
		rows := w.output
		if e.known != (knownRow{}) {
			rows = w.knownOutput
		}
		rows.int(j.N).int(j.Cursor).int(j.OutputBytes).bytes(codec.EncodeProgress(j.Progress)).
			flag(l.Used).time(l.LastOutputAt).flag(l.HasOutput)
		rows.known(e)
	}
	if e.change&changedLease != 0 {
		rows := w.leases
		if e.known != (knownRow{}) {
			rows = w.knownLeases
		}
		rows.int(j.N).int(l.Until.UnixMicro()).flag(l.Used)
		rows.known(e)
	}
}

// known adds what the row of a job that was not read must have.
func (t *table) known(e *entry) {
	if e.known != (knownRow{}) {
		t.uuid(e.known.token).int(e.known.revision).int(e.known.cursor)
	}
}
