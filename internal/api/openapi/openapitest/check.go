package openapitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// check returns how an exchange differs from the description.
func (s *spec) check(x *exchange) error {
	if x.status == 499 { // of any call, and only for a client that has closed its sending side
		return s.checkResponse("/components/responses/Aborted", x)
	}
	call := s.operation(x.request)
	if call == "" {
		return s.checkUnknownPath(x)
	}
	responses, _ := s.object(call + "/responses")
	if responses[strconv.Itoa(x.status)] == nil {
		return fmt.Errorf("%s has no such response", call)
	}
	return errors.Join(s.checkResponse(call+"/responses/"+strconv.Itoa(x.status), x), s.checkRequest(call, x))
}

// errorResponses are the described responses of a path without a call, by status.
var errorResponses = map[int]string{
	400: "Invalid", 401: "BadToken", 403: "Forbidden", 404: "NotFound", 405: "WrongMethod", 500: "Internal", 503: "NotNow",
}

func (s *spec) checkUnknownPath(x *exchange) error {
	if x.status == http.StatusNoContent && x.request.Method == http.MethodOptions {
		return nil
	}
	name, ok := errorResponses[x.status]
	if !ok {
		return errors.New("nothing is described there")
	}
	return s.checkResponse("/components/responses/"+name, x)
}

func (s *spec) checkResponse(pointer string, x *exchange) error {
	response, pointer := s.object(pointer)
	if err := s.checkHeaders(pointer, x.header); err != nil {
		return err
	}
	contents, _ := response["content"].(map[string]any)
	if len(contents) == 0 {
		if x.responseBody.Len() > 0 {
			return fmt.Errorf("%s has no body", pointer)
		}
		return nil
	}
	kind, _, _ := mime.ParseMediaType(x.header.Get("Content-Type"))
	if contents[kind] == nil {
		if contents["*/*"] == nil {
			return fmt.Errorf("%s has no %q", pointer, x.header.Get("Content-Type"))
		}
		return nil
	}
	if x.request.Method == http.MethodHead {
		return nil
	}
	return s.checkBody(pointer+"/content/"+escape(kind), kind, x)
}

func (s *spec) checkHeaders(pointer string, given http.Header) error {
	described, _ := s.object(pointer + "/headers")
	for name := range described {
		header, at := s.object(pointer + "/headers/" + escape(name))
		value := given.Get(name)
		switch {
		case value == "" && header["required"] == true:
			return fmt.Errorf("it has no %s", name)
		case value == "":
			continue
		}
		if err := s.validateValue(at+"/schema", headerValue(s, at+"/schema", value)); err != nil {
			return fmt.Errorf("its %s is %q: %w", name, value, err)
		}
	}
	return nil
}

// headerValue converts a header to the type in its schema.
func headerValue(s *spec, pointer, text string) any {
	schema, _ := s.object(pointer)
	if schema["type"] == "integer" && json.Valid([]byte(text)) {
		return json.Number(text)
	}
	return text
}

func (s *spec) checkBody(media, kind string, x *exchange) error {
	described, _ := s.object(media)
	if events, ok := described["x-events"].(map[string]any); ok {
		return s.checkEvents(media, events, x.responseBody.Bytes())
	}
	if described["schema"] == nil || !x.complete || x.responseBody.truncated || x.isTruncated() {
		return nil
	}
	if kind == "text/plain" {
		return s.validateValue(media+"/schema", x.responseBody.String())
	}
	if err := s.validate(media+"/schema", x.responseBody.Bytes()); err != nil || kind != "application/problem+json" {
		return err
	}
	var problem struct{ Status int }
	if err := json.Unmarshal(x.responseBody.Bytes(), &problem); err != nil || problem.Status != x.status {
		return fmt.Errorf("the status in the problem is %d", problem.Status)
	}
	return nil
}

// isTruncated reports whether the body is shorter than its declared length.
func (x *exchange) isTruncated() bool {
	length := x.header.Get("Content-Length")
	return length != "" && length != strconv.Itoa(x.responseBody.Len())
}

// checkEvents checks the complete events of a stream against their schemas.
func (s *spec) checkEvents(media string, described map[string]any, stream []byte) error {
	blocks := bytes.Split(stream, []byte("\n\n"))
	done := false
	for _, block := range blocks[:len(blocks)-1] {
		e := parseEvent(string(block))
		if e.name == "" && e.data == "" {
			continue // a comment or a retry field
		}
		if described[e.name] == nil {
			return fmt.Errorf("%s has no event %q", media, e.name)
		}
		if done {
			return fmt.Errorf("an event %s follows done", e.name)
		}
		done = e.name == "done"
		if err := s.validateValue("/components/schemas/EventID", e.id); err != nil {
			return fmt.Errorf("an event %s with the id %q: %w", e.name, e.id, err)
		}
		if strings.HasSuffix(e.id, ".done") != done {
			return fmt.Errorf("an event %s has the id %s", e.name, e.id)
		}
		if err := s.validate(media+"/x-events/"+e.name, []byte(e.data)); err != nil {
			return fmt.Errorf("an event %s: %w", e.name, err)
		}
	}
	return nil
}

type event struct{ name, id, data string }

func parseEvent(block string) (e event) {
	for line := range strings.SplitSeq(block, "\n") {
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data += value
		}
	}
	return e
}

// checkRequest checks the body of an accepted request against its schema. The description
// must not be narrower than the server.
func (s *spec) checkRequest(call string, x *exchange) error {
	const media = "/requestBody/content/application~1json/schema"
	accepted := x.status < 300 && !bytes.Contains(x.responseBody.Bytes(), []byte(`{"object":"error"`))
	if !accepted || x.requestBody.truncated || len(bytes.TrimSpace(x.requestBody.Bytes())) == 0 || s.at(call+media) == nil {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(x.requestBody.Bytes()))
	if err != nil {
		return err
	}
	if err := s.validateValue(call+media, withoutNulls(value)); err != nil {
		return fmt.Errorf("the server accepted a request that the description does not allow: %w", err)
	}
	return nil
}

// withoutNulls removes members that are null, which counts as missing. It leaves input alone,
// where null is a value.
func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if name == "input" {
				continue
			}
			if member == nil {
				delete(v, name)
				continue
			}
			v[name] = withoutNulls(member)
		}
	case []any:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
		return slices.Clip(v)
	}
	return v
}
