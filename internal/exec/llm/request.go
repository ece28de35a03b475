package llm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// request is a parsed input.
type request struct {
	model   *model
	fields  map[string]json.RawMessage
	options map[string]json.RawMessage // the members of its stream_options
}

// parseRequest checks the parts of the input that the executor uses. The model's server checks
// the rest.
func (e *Executor) parseRequest(input []byte) (request, *job.Error) {
	req := request{model: e.defaultModel}
	// JSON must be UTF-8, but encoding/json accepts other bytes.
	if !utf8.Valid(input) || json.Unmarshal(input, &req.fields) != nil || req.fields == nil {
		return req, invalid("", `the input must be a JSON object, such as {"messages": [{"role": "user", "content": "Hello"}]}`)
	}
	if err := checkMessages(req.fields["messages"]); err != nil {
		return req, err
	}
	if raw, given := req.fields["model"]; given {
		var name string
		if raw[0] != '"' || json.Unmarshal(raw, &name) != nil {
			return req, invalid("/model", "model must be a string: one of %s", e.modelNames())
		}
		if req.model = e.models[name]; req.model == nil {
			return req, invalid("/model", "there is no model %s: there are %s", job.Quote(name), e.modelNames())
		}
	}
	if raw, given := req.fields["stream_options"]; given && json.Unmarshal(raw, &req.options) != nil {
		return req, invalid("/stream_options", "stream_options must be an object")
	}
	return req, nil
}

func (e *Executor) modelNames() string { return strings.Join(e.names, ", ") }

func checkMessages(raw json.RawMessage) *job.Error {
	var messages []json.RawMessage
	if raw == nil || json.Unmarshal(raw, &messages) != nil || len(messages) == 0 {
		return invalid("/messages", "messages must be a list of at least one message")
	}
	for i, m := range messages {
		at := fmt.Sprintf("/messages/%d", i)
		var fields map[string]json.RawMessage
		if json.Unmarshal(m, &fields) != nil || fields == nil {
			return invalid(at, "a message must be an object with a role and a content")
		}
		var role string
		if raw := fields["role"]; raw == nil || json.Unmarshal(raw, &role) != nil || role == "" {
			return invalid(at+"/role", `a message must have a role, such as "user"`)
		}
	}
	return nil
}

// body returns the body to send in a form: the input with model, stream and stream_options set.
func (r request) body(f form) []byte {
	r.fields["model"] = encodeJSON(r.model.Upstream)
	r.fields["stream"] = encodeJSON(f.stream)
	delete(r.fields, "stream_options")
	if f.options {
		// Usage is requested even if the input disables it, because the result must contain it.
		options := maps.Clone(r.options)
		if options == nil {
			options = make(map[string]json.RawMessage)
		}
		options["include_usage"] = json.RawMessage("true")
		r.fields["stream_options"] = encodeJSON(options)
	}
	return encodeJSON(r.fields)
}

// encodeJSON encodes a value without escaping <, > and &. The value was decoded from JSON, so
// encoding cannot fail.
func encodeJSON(value any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func invalid(field, format string, args ...any) *job.Error {
	return &job.Error{Code: job.Invalid, Message: fmt.Sprintf(format, args...), Field: field}
}
