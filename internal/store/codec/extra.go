package codec

import (
	"bytes"
	"encoding/json"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// extra has the fields that most jobs do not have, as JSON. The fields that the end of a job
// needs come first: they can be read even if a later one is damaged.
type extra struct {
	Ref      string            `json:"r,omitempty"` // the only reference
	Refs     []string          `json:"rs,omitempty"`
	Tally    string            `json:"y,omitempty"`
	Resource string            `json:"s,omitempty"`
	Metadata map[string]string `json:"m,omitempty"`
	Files    []job.File        `json:"f,omitempty"`
	Trace    string            `json:"t,omitempty"`
}

// EncodeExtra encodes the fields that most jobs do not have: Metadata, Refs, Files, Trace, Tally
// and Resource. It returns nil if the job has none of them.
func EncodeExtra(j *job.Job) ([]byte, error) {
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

// DecodeExtra sets the fields that [EncodeExtra] has encoded. Together with an error it sets those
// before the damage.
func DecodeExtra(raw []byte, j *job.Job) error {
	x, err := decodeExtra(raw)
	j.Metadata, j.Refs, j.Files, j.Trace, j.Tally, j.Resource = x.Metadata, x.refs(), x.Files, x.Trace, x.Tally, x.Resource
	return err
}

// DecodeTally returns the tally among the fields that [EncodeExtra] has encoded.
func DecodeTally(raw []byte) string {
	if !bytes.Contains(raw, []byte(`"y":`)) { // decoding costs more
		return ""
	}
	x, _ := decodeExtra(raw)
	return x.Tally
}

// HasRefs reports whether the fields that [EncodeExtra] has encoded may have references. It is
// true for some without any.
func HasRefs(raw []byte) bool {
	return bytes.Contains(raw, []byte(`"r":`)) || bytes.Contains(raw, []byte(`"rs":`))
}

// refs returns the references: a single one and several ones are stored differently.
func (x *extra) refs() []string {
	if x.Ref != "" {
		return []string{x.Ref}
	}
	return x.Refs
}

// decodeExtra returns the fields before the damage together with an error.
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
