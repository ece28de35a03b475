package llm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// request is an input, understood as far as we need to.
type request struct {
	model   *model
	fields  map[string]json.RawMessage
	options map[string]json.RawMessage // its stream_options
}

// read is strict about what we use and looks at nothing else: that is for the
// model's server to judge.
func (e *Executor) read(input []byte) (request, *job.Error) {
	req := request{model: e.fallback}
	if !utf8.Valid(input) || json.Unmarshal(input, &req.fields) != nil || req.fields == nil {
		return req, invalid("", `the input must be a JSON object, such as {"messages": [{"role": "user", "content": "Hello"}]}`)
	}
	if err := checkMessages(req.fields["messages"]); err != nil {
		return req, err
	}
	if raw, given := req.fields["model"]; given {
		var name string
		if raw[0] != '"' || json.Unmarshal(raw, &name) != nil {
			return req, invalid("/model", "model must be a string: one of %s", e.known())
		}
		if req.model = e.models[name]; req.model == nil {
			return req, invalid("/model", "there is no model %s: there are %s", job.Quote(name), e.known())
		}
	}
	if raw, given := req.fields["stream_options"]; given && json.Unmarshal(raw, &req.options) != nil {
		return req, invalid("/stream_options", "stream_options must be an object")
	}
	return req, nil
}

func (e *Executor) known() string { return strings.Join(e.names, ", ") }

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

// body is what is sent: the input, with what we set.
func (r request) body() []byte {
	options := map[string]json.RawMessage{"include_usage": json.RawMessage("true")}
	for name, value := range r.options {
		if name != "include_usage" {
			options[name] = value
		}
	}
	r.fields["model"] = encode(r.model.Upstream)
	r.fields["stream"] = json.RawMessage("true")
	r.fields["stream_options"] = encode(options)
	return encode(r.fields)
}

// encode writes JSON without escaping what only matters inside a web page. Its
// values came from JSON, so they can be written.
func encode(value any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func invalid(field, format string, args ...any) *job.Error {
	return &job.Error{Code: job.Invalid, Message: fmt.Sprintf(format, args...), Field: field}
}
