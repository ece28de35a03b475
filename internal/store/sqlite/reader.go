package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"

	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// readerPool has the readers that are idle. A caller that takes a reader owns it until it gives
// the reader back. A reader that has no connection yet is taken only if every other one is busy:
// most servers never open them all.
type readerPool struct {
	open   chan *reader // with a connection
	unused chan *reader // without
}

// newReaderPool starts n readers of the file at path.
func newReaderPool(n int, path string, file os.FileInfo, views *tailViews, ring *sealed.Ring) readerPool {
	p := readerPool{make(chan *reader, n), make(chan *reader, n)}
	for range n {
		r := &reader{path: path, file: file, tailViews: views, ring: ring, calls: make(chan func(*reader) error), answers: make(chan error)}
		go r.run()
		p.unused <- r
	}
	return p
}

func (p *readerPool) take(ctx context.Context) (*reader, error) {
	select {
	case r := <-p.open:
		return r, nil
	default:
	}
	select {
	case r := <-p.open:
		return r, nil
	case r := <-p.unused:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *readerPool) giveBack(r *reader) {
	if r.conn == nil {
		p.unused <- r
	} else {
		p.open <- r
	}
}

// close waits for the reads under way and closes all readers.
func (p *readerPool) close() (err error) {
	for range cap(p.unused) {
		r, _ := p.take(context.Background()) // never ends
		err = errors.Join(err, r.close())
	}
	return err
}

// reader is a connection that reads, with its statements, and a goroutine on which all of them
// are called. The first call opens the connection.
//
// A list has readers of its own, so that no number of lists delays a read of one job.
//
// SQLite needs a deep stack, and a goroutine's stack stays large. Thousands of callers read once
// and then wait for something else; each would keep a deep stack.
type reader struct {
	calls   chan func(*reader) error // closed by close
	answers chan error               // closed by run

	path                     string
	file                     os.FileInfo // of the file that the writer has open
	tailViews                *tailViews
	ring                     *sealed.Ring
	conn                     *sqlite.Conn // nil before the first call
	begin, end               *query
	job                      *query
	input, result, output    *query
	outputEnd, position      *query
	turn, idempotent         *query
	text                     *query
	sideRow                  *query
	sideRowsUp, sideRowsDown *query
	tenantRows               *query
	nextReady, nextExpiry    *query
	storedBytes              *query
	withFiles, abandonable   *query
	tally, version, allKept  *query
	listQueries
}

// connect opens the connection.
func (r *reader) connect() error {
	if file, err := os.Stat(r.path); err != nil || !os.SameFile(file, r.file) {
		return fmt.Errorf("the file %s was moved or replaced while the server runs: stop it and put the file back", r.path)
	}
	conn, err := connect(r.path, []string{"PRAGMA query_only = ON", "PRAGMA cache_size = -2048"})
	if err != nil {
		return err
	}
	r.conn = conn
	for _, p := range []struct {
		into **query
		sql  string
	}{
		{&r.begin, "BEGIN"},
		{&r.end, "COMMIT"},
		{&r.job, "SELECT " + jobColumns + " FROM jobs WHERE " + ofOwner + " AND deleted = 0"},
		{&r.row, "SELECT " + jobColumns + ", deleted FROM jobs WHERE n = ?"},
		{&r.ofTenant, "SELECT id, n FROM jobs INDEXED BY jobs_id WHERE tenant = ? AND id < ? AND id > ? ORDER BY id DESC LIMIT ?"},
		{&r.byQueue.ids, groupIDs("jobs_listed", "")},
		{&r.byQueue.nextQueue, nextQueue("jobs_listed", "")},
		{&r.byKey.ids, groupIDs("jobs_keyed", "key = ? AND key <> '' AND ")},
		{&r.byKey.nextQueue, nextQueue("jobs_keyed", "key = ? AND key <> '' AND ")},
		{&r.byCode.ids, groupIDs("jobs_coded", "code = ? AND ")},
		{&r.byCode.nextQueue, nextQueue("jobs_coded", "code = ? AND ")},
		{&r.runningBits, "SELECT n64, bits FROM running"},
		{&r.runningRow, "SELECT id, tenant, usr, queue, key FROM jobs WHERE n = ?"},
		{&r.input, "SELECT body FROM inputs WHERE n = ?"},
		{&r.result, "SELECT content_type, length(body), substr(body, 1, 36), CASE WHEN " + plainLength + " <= ? THEN body END FROM results WHERE n = ?"},
		{&r.output, outputSQL},
		{&r.tally, tallySQL},
		{&r.tenantRows, "SELECT usr, kind, parent, id FROM records WHERE tenant = ? LIMIT ?"},
		{&r.allKept, "SELECT tenant, usr, bytes FROM owners"},
		{&r.version, versionSQL},
		{&r.outputEnd, outputEndSQL},
		{&r.turn, "SELECT queue, turn, n, lane FROM jobs WHERE " + ofOwner + " AND state = 2"},
		{&r.position, "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = ? AND lane = ? AND (turn, n) < (?, ?) LIMIT ?)"},
		{&r.idempotent, "SELECT job, hash FROM idempotency WHERE tenant = ? AND usr = ? AND key = ?"},
		{&r.text, textSQL},
		{&r.sideRow, "SELECT body FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id = ?"},
		{&r.sideRowsUp, "SELECT id, body FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id > ? ORDER BY id LIMIT ?"},
		{&r.sideRowsDown, "SELECT id, body FROM records WHERE tenant = ? AND usr = ? AND kind = ? AND parent = ? AND id < ? ORDER BY id DESC LIMIT ?"},
		{&r.nextReady, "SELECT due FROM jobs WHERE due IS NOT NULL ORDER BY due LIMIT 1"},
		{&r.storedBytes, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"},
		{&r.nextExpiry, "SELECT queue_by FROM jobs WHERE queue_by IS NOT NULL ORDER BY queue_by LIMIT 1"},
		{&r.withFiles, "SELECT n, id FROM with_files WHERE n > ? ORDER BY n LIMIT ?"},
		{&r.abandonable, "SELECT " + jobColumns + ", until FROM presence JOIN jobs USING (n, id, tenant, usr) WHERE (until, id) > (?, ?) AND until <= ? ORDER BY until, id LIMIT ?"},
	} {
		*p.into = newQuery(conn, p.sql)
	}
	return nil
}

// run executes calls until close closes the channel.
func (r *reader) run() {
	defer close(r.answers)
	for f := range r.calls {
		r.answers <- r.do(f)
	}
}

// call calls f in a transaction, on the reader's goroutine.
func (r *reader) call(f func(*reader) error) error {
	r.calls <- f
	return <-r.answers
}

// close stops the goroutine, waits for it, and closes the connection.
func (r *reader) close() error {
	close(r.calls)
	<-r.answers
	if r.conn == nil {
		return nil
	}
	return r.conn.Close()
}
