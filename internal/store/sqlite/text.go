package sqlite

import (
	"errors"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Text reads the text of a job's last attempt; see [ops.OutputTx]. All of it is in the log.
func (t *tx) Text(j *ops.Job, limit int) (string, error) {
	text, err := readText(t.q.text, t.logOf(j), tailView{}, limit)
	return text, unlessDamaged(err)
}

// Entries reads a job's output; see [ops.OutputTx]. All of it is in the log.
func (t *tx) Entries(j *ops.Job, limit int) ([]job.Entry, error) {
	log := &outputPage{bytesLeft: limit}
	err := readEntries(t.q.output, t.logOf(j), tailView{}, log)
	return log.entries, unlessDamaged(err)
}

func (t *tx) logOf(j *ops.Job) jobLog { return jobLog{t.ring, j.ID, j.N} }

// unlessDamaged omits an error that reports a damaged log, or one whose key is missing: a job ends
// with the readable part.
func unlessDamaged(err error) error {
	if errors.Is(err, errBlock) || job.CodeOf(err) == job.EncryptionKeyMissing {
		return nil
	}
	return err
}

// errStop makes a query stop before its last row.
var errStop = errors.New("sqlite: enough was read")

// readText joins the text of a job's last attempt, up to limit bytes: the rows of the query,
// then the entries of the view.
func readText(q *query, l jobLog, view tailView, limit int) (string, error) {
	var text []byte
	add := func(e job.Entry) {
		if e.Kind == job.KindText && len(text) <= limit {
			text = append(text, e.Data...)
		}
	}
	err := q.int(l.n).each(func(c column) error {
		data, err := l.open(c.int(0), c.int(2), c.bytes(1))
		if err != nil {
			return err
		}
		if c.int(0) != kindBlock {
			add(job.Entry{Kind: job.KindText, Data: data})
		} else if err := eachEntry(data, add); err != nil {
			return err
		}
		if len(text) > limit {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	if err == nil {
		err = eachEntry(view.block, add)
	}
	return truncateText(text, limit), err
}

// truncateText shortens a text to limit bytes without splitting a character.
func truncateText(text []byte, limit int) string {
	if len(text) <= limit {
		return string(text)
	}
	// Go back at most three bytes, to the start of the cut character.
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return string(text[:limit])
}
