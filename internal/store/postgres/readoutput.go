package postgres

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// pageOverhead is the number of bytes that each entry adds to the size of its data when a limit
// of bytes is checked. Reading many small entries takes time too.
const pageOverhead = 64

// maxEntries is how many entries one statement reads.
const maxEntries = 4096

var (
	// The entries of a page: those that begin before $5 bytes of data after the first one. The
	// statement finds them by the sum up to each entry, without reading the data of the others.
	readOutput = &statement{"read_output", `with j as (` + ofJob("n", "n") + `),
		before as (select coalesce((select total from output where n = (select n from j) and seq = $4::bigint), 0) as total)
		select seq, attempt, kind, events, data from output where n = (select n from j) and seq > $4::bigint and seq <= $4::bigint + $6::bigint
			and total - ` + plainData + ` < (select total from before) + $5::bigint order by seq`}
	// The text of the last attempt: $4 is the last entry that was read before, $5 the bytes that are wanted,
	// $6 the number of entries. The length of an entry that is not compressed is known without reading it.
	readText = &statement{"read_text", `with j as (` + ofJob("n", "n") + `),
		log as (select seq, data from output where n = (select n from j) and kind = 1
			and seq > greatest($4::bigint, coalesce((select max(seq) from output where n = (select n from j) and kind = 5), 0)) order by seq limit $6::bigint)
		select seq, data from (select seq, data, sum(` + plainData + `) over (order by seq) - ` + plainData + ` as before from log) l
			where before <= $5::bigint order by seq`}
)

// outputPage collects entries up to a limit of bytes.
type outputPage struct {
	entries   []job.Entry
	bytesLeft int
	full      bool
}

// add adds an entry, unless the page is full.
func (p *outputPage) add(r *record, ring *sealed.Ring, of job.ID) error {
	e := job.Entry{Seq: r.int(), Attempt: int(r.int()), Kind: job.Kind(r.int()), Events: int(r.int())}
	data, err := ring.Open(sealed.Entry(of, e.Seq), r.raw())
	if err != nil {
		return err
	}
	if p.bytesLeft -= pageOverhead + len(data); p.full || p.bytesLeft < 0 && len(p.entries) > 0 {
		p.full = true
		return nil
	}
	e.Data = append(make([]byte, 0, len(data)), data...)
	p.entries = append(p.entries, e)
	return nil
}

// Output reads a job and its log; see [store.JobReader].
func (s *Store) Output(ctx context.Context, owner job.Owner, id job.ID, after int64, maxBytes int) (job.Job, []job.Entry, error) {
	var j *ops.Job
	var page outputPage
	err := s.snapshot(ctx, func(r *reader) error {
		j, page = nil, outputPage{bytesLeft: maxBytes}
		next := func(after int64) question {
			entries := min(max(page.bytesLeft, 0)/pageOverhead+1, maxEntries)
			params := jobParams(owner, id, intParam(after), intParam(int64(max(page.bytesLeft, 1))), intParam(int64(entries)))
			return question{readOutput, params, func(r *record) error { return page.add(r, s.ring, id) }}
		}
		err := r.whole(ctx, jobQuestion(owner, id, &j), next(after))
		// Entries never change, so those after the first statement need not be of the same moment.
		for err == nil && !page.full && page.bytesLeft > 0 {
			n := len(page.entries)
			if n == 0 || page.entries[n-1].Seq >= j.Cursor {
				break
			}
			if err = r.ask(ctx, next(page.entries[n-1].Seq)); len(page.entries) == n {
				break // the job was removed
			}
		}
		return err
	})
	if err == nil && j == nil {
		err = store.NoJob(id)
	}
	if err != nil {
		return job.Job{}, nil, err
	}
	return j.Job, page.entries, nil
}

// jobQuestion reads a job in a snapshot.
func jobQuestion(owner job.Owner, id job.ID, into **ops.Job) question {
	return question{readJob, jobParams(owner, id), func(r *record) (err error) {
		*into, err = scanJob(r)
		return err
	}}
}

// textEntries is how many entries of text one statement reads.
const textEntries = 1024

// Text joins the text of a job's last attempt; see [store.JobReader].
func (s *Store) Text(ctx context.Context, owner job.Owner, id job.ID, limit int) (job.Job, string, error) {
	var j *ops.Job
	var text []byte
	err := s.snapshot(ctx, func(r *reader) error {
		last, read := int64(0), 0
		next := func() question {
			params := jobParams(owner, id, intParam(last), intParam(int64(limit-len(text))), intParam(textEntries))
			return question{readText, params, func(r *record) error {
				last = r.int()
				data, err := s.ring.Open(sealed.Entry(id, last), r.raw())
				text = append(text, data...)
				read++
				return err
			}}
		}
		j, text = nil, nil
		err := r.whole(ctx, jobQuestion(owner, id, &j), next())
		if err != nil || read < textEntries || len(text) > limit {
			return err
		}
		// A long text: read all of it in one snapshot.
		j, text, last, read = nil, nil, 0, 0
		err = r.first(ctx, jobQuestion(owner, id, &j), next())
		for err == nil && read == textEntries && len(text) <= limit {
			read = 0
			err = r.ask(ctx, next())
		}
		return err
	})
	if err == nil && j == nil {
		err = store.NoJob(id)
	}
	if err != nil {
		return job.Job{}, "", err
	}
	return j.Job, truncateText(text, limit), nil
}
