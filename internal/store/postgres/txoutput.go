package postgres

import (
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

var (
	selectText = &statement{"select_text", `select seq, data from (
		select seq, data, sum(` + plainData + `) over (order by seq) - ` + plainData + ` as before from output
		where n = $1::bigint and kind = 1 and seq > coalesce((select max(seq) from output where n = $1::bigint and kind = 5), 0)) as t
		where before <= $2::bigint order by seq`}
	selectEntries = &statement{"select_entries", `select seq, attempt, kind, events, data from output
		where n = $1::bigint and total - ` + plainData + ` < $2::bigint order by seq`}
)

// plainData and plainBody are the lengths of columns that may be sealed, without the encryption.
var (
	plainData = sealed.LengthSQL("data", "length(data)", bytesLiteral)
	plainBody = sealed.LengthSQL("body", "length(body)", bytesLiteral)
)

// bytesLiteral is how bytes are written in a statement.
const bytesLiteral = `'\x%x'::bytea`

// Append appends output; see [ops.OutputTx].
func (t *tx) Append(j *ops.Job, entries []job.Entry, _ bool) error {
	t.addEntries(j, entries)
	t.changed(t.byN[j.N], changedOutput)
	return nil
}

// AppendLast appends the last output of an attempt; see [ops.OutputTx].
func (t *tx) AppendLast(j *ops.Job, entries []job.Entry) error {
	t.addEntries(j, entries)
	return nil
}

func (t *tx) addEntries(j *ops.Job, entries []job.Entry) {
	for i := range entries {
		e := &entries[i]
		j.AddOutput(entries[i:i+1], t.now)
		t.out.output.int(j.N).int(e.Seq).int(int64(e.Attempt)).int(int64(e.Kind)).int(int64(e.Events)).int(j.OutputBytes).
			blob(t.s.ring.Seal(sealed.Entry(j.ID, e.Seq), e.Data))
		t.bytes += outputBytes(1, int64(len(e.Data)))
	}
	if len(entries) > 0 {
		t.side.output[j.N] = append(t.side.output[j.N], entries...)
	}
}

// Text joins the text of a job's last attempt; see [ops.OutputTx].
func (t *tx) Text(j *ops.Job, limit int) (string, error) {
	var text []byte
	pending := t.side.output[j.N]
	restarted := false
	for i := len(pending) - 1; i >= 0; i-- {
		if pending[i].Kind == job.KindAttempt {
			pending, restarted = pending[i+1:], true
			break
		}
	}
	if !restarted {
		readable := true
		t.reads.add(selectText, func(r *record) {
			data, err := t.s.ring.Open(sealed.Entry(j.ID, r.int()), r.raw())
			if readable = readable && err == nil; readable {
				text = append(text, data...)
			}
		}, intParam(j.N), intParam(int64(limit)))
		if err := t.read(); err != nil {
			return "", err
		}
		if !readable {
			return truncateText(text, limit), nil
		}
	}
	for i := range pending {
		if pending[i].Kind == job.KindText && len(text) <= limit {
			text = append(text, pending[i].Data...)
		}
	}
	return truncateText(text, limit), nil
}

// Entries reads a job's output; see [ops.OutputTx].
func (t *tx) Entries(j *ops.Job, limit int) (list []job.Entry, err error) {
	left, readable := limit, true
	t.reads.add(selectEntries, func(r *record) {
		e := job.Entry{Seq: r.int(), Attempt: int(r.int()), Kind: job.Kind(r.int()), Events: int(r.int())}
		var err error
		if e.Data, err = t.s.ring.Open(sealed.Entry(j.ID, e.Seq), r.bytes()); err != nil || !readable {
			readable = false
			return
		}
		left -= len(e.Data)
		list = append(list, e)
	}, intParam(j.N), intParam(int64(limit)))
	if err := t.read(); err != nil || !readable {
		return list, err
	}
	for _, e := range t.side.output[j.N] {
		if left <= 0 {
			break
		}
		left -= len(e.Data)
		list = append(list, e)
	}
	return list, nil
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
