package postgres

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

var (
	readNextDue = &statement{"read_next_due", `select (select due from jobs where due is not null order by due limit 1),
		(select queue_by from jobs where queue_by is not null order by queue_by limit 1)`}
	readWithFiles   = &statement{"read_with_files", "select n, id from with_files where n > $1 order by n limit $2::bigint"}
	readAbandonable = &statement{"read_abandonable", "select p.until, j.* from presence p cross join lateral (select " + unfinishedJob + ` from jobs where n = p.n and id = p.id offset 0) j
		where (p.until, p.id) > ($1::bigint, $2::uuid) and p.until <= $3::bigint order by p.until, p.id limit $4::bigint`}
	readKept     = &statement{"read_kept", "select tenant, usr, bytes, (sum(bytes) over ())::bigint from owners order by bytes desc limit 1"}
	readVersions = &statement{"read_versions", `select v.* from unnest($1::text[], $2::text[], $3::uuid[]) as w(tenant, usr, id) cross join lateral (
		select id, revision, state, attempt, cursor, token, cancel_at, deleted from jobs where tenant = w.tenant and usr = w.usr and id = w.id
		union all select id, revision, state, attempt, cursor, null, null, false from ended where tenant = w.tenant and usr = w.usr and id = w.id offset 0) v`}
)

// NextDue returns when the next job becomes due; see [store.UpkeepReader].
func (s *Store) NextDue(ctx context.Context) (ready, expires time.Time, err error) {
	if err := s.follow(ctx); err != nil {
		return ready, expires, unreadable(err)
	}
	err = s.read(ctx, readNextDue, func(r *record) error {
		ready, expires = r.time(), r.time()
		return nil
	})
	// Any batch queues the parked suspect. A ready time of now makes the engine commit one.
	if now := s.Now(); err == nil && s.suspectStuck() && (ready.IsZero() || ready.After(now)) {
		ready = now
	}
	return ready, expires, err
}

// WithFiles lists jobs that have files; see [store.UpkeepReader].
func (s *Store) WithFiles(ctx context.Context, after string, limit int) (ids []job.ID, next string, err error) {
	from, last := int64(0), int64(0)
	if after != "" {
		if from, err = strconv.ParseInt(after, 10, 64); err != nil || from < 0 {
			return nil, "", badCursor(after)
		}
	}
	err = s.read(ctx, readWithFiles, func(r *record) error {
		last = r.int()
		ids = append(ids, r.uuid())
		return nil
	}, intParam(from), intParam(int64(limit)))
	if err == nil && len(ids) == limit {
		next = strconv.FormatInt(last, 10)
	}
	return ids, next, err
}

func badCursor(text string) error {
	return job.Errorf(job.Invalid, "%s is not a cursor of this list", job.Quote(text))
}

// Abandonable lists jobs whose abandon timeout is over; see [store.UpkeepReader]. The cursor is
// the time at which the timeout of the last one ended, and its id.
func (s *Store) Abandonable(ctx context.Context, after string, limit int) (jobs []job.Job, next string, err error) {
	from := make([]byte, 24)
	if after != "" {
		if from, err = hex.DecodeString(after); err != nil || len(from) != 24 {
			return nil, "", badCursor(after)
		}
	}
	n := 0
	err = s.read(ctx, readAbandonable, func(r *record) error {
		n++
		until := r.int()
		j := scanEnded(r).job
		next = hex.EncodeToString(append(binary.BigEndian.AppendUint64(nil, uint64(until)), j.ID[:]...))
		if !j.Damaged { // an op that names the job repairs a damaged row
			jobs = append(jobs, j.Job)
		}
		return nil
	}, from[:8], from[8:], intParam(s.Now().UnixMicro()), intParam(int64(limit)))
	if n < limit || err != nil {
		next = ""
	}
	return jobs, next, err
}

// Kept reads what owners keep; see [store.UpkeepReader].
func (s *Store) Kept(ctx context.Context) (k store.Kept, err error) {
	err = s.read(ctx, readKept, func(r *record) error {
		k = store.Kept{Most: job.Owner{Tenant: r.text(), User: r.text()}, MostBytes: r.int(), Bytes: r.int()}
		return nil
	})
	return k, err
}

// Versions returns the current state of jobs; see [store.UpkeepReader].
func (s *Store) Versions(ctx context.Context, jobs []store.OwnedID) (list []store.JobVersion, err error) {
	wanted := newTable("ttu")
	for i := range jobs {
		// A text that the database cannot store would fail the whole statement.
		if o := jobs[i].Owner; isStorable(o.Tenant) && isStorable(o.User) {
			wanted.text(o.Tenant).text(o.User).uuid(jobs[i].ID)
		}
	}
	list = make([]store.JobVersion, 0, len(jobs))
	err = s.read(ctx, readVersions, func(r *record) error {
		v := store.JobVersion{ID: r.uuid(), Revision: r.int(), State: job.State(r.int()), Attempt: int(r.int()), Cursor: r.int()}
		token, cancelled, deleted := r.uuid(), !r.time().IsZero(), r.flag()
		if v.State == job.Running {
			v.Token, v.CancelRequested, v.Deleted = token, cancelled, deleted
		}
		list = append(list, v)
		return nil
	}, wanted.params()...)
	return list, err
}
