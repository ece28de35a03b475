package sqlite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// jobColumns are the columns that scanJob reads, in its order. Code that reads a column by
// number depends on that order.
const jobColumns = `n, id, tenant, usr, queue, key, priority, state, attempt, max_attempts,
	cursor, out_bytes, progress, failure, usage, policy, extra,
	created, run_at, started, finished, cancel_at, expires, in_bytes, files, revision, losses, cleared`

const afterJobColumns = 28 // the first column after jobColumns

// extra is the part of a row that most jobs do not have, as JSON. The fields that the end of a
// job needs come first: they can be read even if a later one is damaged.
type extra struct {
	Ref      string            `json:"r,omitempty"` // the only reference
	Refs     []string          `json:"rs,omitempty"`
	Tally    string            `json:"y,omitempty"`
	Resource string            `json:"s,omitempty"`
	Metadata map[string]string `json:"m,omitempty"`
	Files    []job.File        `json:"f,omitempty"`
	Trace    string            `json:"t,omitempty"`
}

func encodeExtra(j *job.Job) ([]byte, error) {
	if len(j.Metadata) == 0 && len(j.Refs) == 0 && len(j.Files) == 0 && j.Trace == "" && j.Tally == "" && j.Resource == "" {
		return nil, nil
	}
	x := extra{Metadata: j.Metadata, Files: j.Files, Trace: j.Trace, Tally: j.Tally, Resource: j.Resource}
	if len(j.Refs) == 1 && j.Refs[0] != "" {
		x.Ref = j.Refs[0]
	} else {
		x.Refs = j.Refs
	}
	return json.Marshal(x)
}

// refs returns the references: a single one and several ones are stored differently.
func (x *extra) refs() []string {
	if x.Ref != "" {
		return []string{x.Ref}
	}
	return x.Refs
}

// decodeGroups returns the tally and the resource in a column extra.
func decodeGroups(raw []byte) (tally, resource string) {
	if !bytes.Contains(raw, []byte(`"y":`)) && !bytes.Contains(raw, []byte(`"s":`)) { // decoding costs more
		return "", ""
	}
	x, _ := decodeExtra(raw)
	return x.Tally, x.Resource
}

// decodeExtra decodes a column extra. Together with an error it returns the fields before the
// damage.
func decodeExtra(raw []byte) (x extra, err error) {
	if len(raw) == 0 {
		return x, nil
	}
	if err = json.Unmarshal(raw, &x); err == nil {
		return x, nil
	}
	// The failed decoding may have filled some fields: decode again, field by field.
	x = extra{}
	fields := map[string]any{"r": &x.Ref, "rs": &x.Refs, "y": &x.Tally, "s": &x.Resource, "m": &x.Metadata}
	in := json.NewDecoder(bytes.NewReader(raw))
	if _, failed := in.Token(); failed != nil {
		return x, err
	}
	for {
		name, _ := in.Token()
		key, _ := name.(string)
		if into := fields[key]; into == nil || in.Decode(into) != nil {
			return x, err
		}
	}
}

// row is a job with the columns that are not part of [job.Job].
type row struct {
	job.Job
	n     int64 // the row number
	files int   // the number of files, which is known even if their names are damaged
}

func scanRow(c column) (row, error) {
	j, err := scanJob(c)
	return row{j, c.int(0), int(c.int(24))}, err
}

// scanJob decodes a job. Together with an error it returns all fields that are not damaged.
func scanJob(c column) (j job.Job, err error) {
	j = job.Job{
		ID:          c.id(1),
		Owner:       job.Owner{Tenant: c.text(2), User: c.text(3)},
		Queue:       c.text(4),
		Key:         c.text(5),
		Priority:    int(c.int(6)),
		State:       job.State(c.int(7)),
		Attempt:     int(c.int(8)),
		MaxAttempts: int(c.int(9)),
		Cursor:      c.int(10),
		OutputBytes: c.int(11),
		Usage:       c.bytes(14),
		CreatedAt:   c.time(17), RunAt: c.time(18), StartedAt: c.time(19), FinishedAt: c.time(20),
		CancelRequestedAt: c.time(21), ExpiresAt: c.time(22),
		InputBytes: c.int(23),
		Revision:   c.int(25),
		Losses:     int(c.int(26)), Cleared: int(c.int(27)),
	}
	policy, failed := decodePolicy(c.bytes(15))
	x, damage := decodeExtra(c.bytes(16))
	failed = errors.Join(failed, damage, decode(c, 12, &j.Progress), decode(c, 13, &j.Failure))
	j.Policy, j.Metadata, j.Refs, j.Files, j.Trace, j.Tally, j.Resource = policy, x.Metadata, x.refs(), x.Files, x.Trace, x.Tally, x.Resource
	if failed != nil {
		return j, fmt.Errorf("%w: %s: %w", errDamagedRow, j.ID, failed)
	}
	return j, nil
}

// decode decodes a JSON column. NULL and invalid JSON leave the value unchanged.
func decode[T any](c column, i int, into *T) error {
	if c.stmt.ColumnIsNull(i) {
		return nil
	}
	var v T
	err := json.Unmarshal(c.bytes(i), &v)
	if err == nil {
		*into = v
	}
	return err
}

func encodeProgress(p job.Progress) []byte {
	if p == (job.Progress{}) {
		return nil
	}
	return mustJSON(p)
}

// failure binds a failure and its code, which lists select by; nil is NULL.
func (q *query) failure(f *job.Failure) *query {
	if f == nil {
		return q.null().null()
	}
	return q.bytes(mustJSON(f)).text(f.Code)
}

func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("sqlite: " + err.Error())
	}
	return raw
}

// roundTime rounds a time to the microseconds that the store keeps.
func roundTime(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()) }
