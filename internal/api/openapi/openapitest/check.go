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

// check says what of an exchange is not as described.
func (s *spec) check(x *exchange) error {
	call := s.callOf(x.request)
	if call == "" {
		return s.checkElsewhere(x)
	}
	answers, _ := s.object(call + "/responses")
	if answers[strconv.Itoa(x.status)] == nil {
		return fmt.Errorf("%s has no such answer", call)
	}
	return errors.Join(s.checkAnswer(call+"/responses/"+strconv.Itoa(x.status), x), s.checkRequest(call, x))
}

// refusals are what may be answered where there is no call.
var refusals = map[int]string{
	400: "Invalid", 401: "BadToken", 403: "Forbidden", 404: "NotFound", 405: "WrongMethod", 500: "Internal", 503: "NotNow",
}

func (s *spec) checkElsewhere(x *exchange) error {
	if x.status == http.StatusNoContent && x.request.Method == http.MethodOptions {
		return nil
	}
	name, ok := refusals[x.status]
	if !ok {
		return errors.New("nothing is described there")
	}
	return s.checkAnswer("/components/responses/"+name, x)
}

func (s *spec) checkAnswer(place string, x *exchange) error {
	answer, place := s.object(place)
	if err := s.checkHeaders(place, x.header); err != nil {
		return err
	}
	contents, _ := answer["content"].(map[string]any)
	if len(contents) == 0 {
		if x.answered.Len() > 0 {
			return fmt.Errorf("%s has no body", place)
		}
		return nil
	}
	kind, _, _ := mime.ParseMediaType(x.header.Get("Content-Type"))
	if contents[kind] == nil {
		if contents["*/*"] == nil {
			return fmt.Errorf("%s has no %q", place, x.header.Get("Content-Type"))
		}
		return nil
	}
	if x.request.Method == http.MethodHead {
		return nil
	}
	return s.checkBody(place+"/content/"+escape(kind), kind, x)
}

func (s *spec) checkHeaders(place string, given http.Header) error {
	described, _ := s.object(place + "/headers")
	for name := range described {
		header, at := s.object(place + "/headers/" + escape(name))
		value := given.Get(name)
		switch {
		case value == "" && header["required"] == true:
			return fmt.Errorf("it has no %s", name)
		case value == "":
			continue
		}
		if err := s.validateValue(at+"/schema", asSchemaHas(s, at+"/schema", value)); err != nil {
			return fmt.Errorf("its %s is %q: %w", name, value, err)
		}
	}
	return nil
}

// asSchemaHas is a header's text as the value that it stands for.
func asSchemaHas(s *spec, place, text string) any {
	schema, _ := s.object(place)
	if schema["type"] == "integer" && json.Valid([]byte(text)) {
		return json.Number(text)
	}
	return text
}

func (s *spec) checkBody(media, kind string, x *exchange) error {
	described, _ := s.object(media)
	if events, ok := described["x-events"].(map[string]any); ok {
		return s.checkEvents(media, events, x.answered.Bytes())
	}
	if described["schema"] == nil || !x.whole || x.answered.more || x.short() {
		return nil
	}
	if kind == "text/plain" {
		return s.validateValue(media+"/schema", x.answered.String())
	}
	if err := s.validate(media+"/schema", x.answered.Bytes()); err != nil || kind != "application/problem+json" {
		return err
	}
	var problem struct{ Status int }
	if err := json.Unmarshal(x.answered.Bytes(), &problem); err != nil || problem.Status != x.status {
		return fmt.Errorf("the problem says %d", problem.Status)
	}
	return nil
}

// short says whether the body broke off before its declared length.
func (x *exchange) short() bool {
	length := x.header.Get("Content-Length")
	return length != "" && length != strconv.Itoa(x.answered.Len())
}

// checkEvents holds the events of a stream that arrived whole against their schemas.
func (s *spec) checkEvents(media string, described map[string]any, stream []byte) error {
	blocks := bytes.Split(stream, []byte("\n\n"))
	over := false
	for _, block := range blocks[:len(blocks)-1] {
		e := parseEvent(string(block))
		if e.name == "" && e.data == "" {
			continue // a comment, or a word about reconnecting
		}
		if described[e.name] == nil {
			return fmt.Errorf("%s has no event %q", media, e.name)
		}
		if over {
			return fmt.Errorf("an event %s follows done", e.name)
		}
		over = e.name == "done"
		if err := s.validateValue("/components/schemas/EventID", e.id); err != nil {
			return fmt.Errorf("an event %s with the id %q: %w", e.name, e.id, err)
		}
		if strings.HasSuffix(e.id, ".done") != over {
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

// checkRequest holds the body of a request that was taken against what is described,
// which is not to be narrower than what is taken.
func (s *spec) checkRequest(call string, x *exchange) error {
	const media = "/requestBody/content/application~1json/schema"
	taken := x.status < 300 && !bytes.Contains(x.answered.Bytes(), []byte(`{"object":"error"`))
	if !taken || x.asked.more || len(bytes.TrimSpace(x.asked.Bytes())) == 0 || s.at(call+media) == nil {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(x.asked.Bytes()))
	if err != nil {
		return err
	}
	if err := s.validateValue(call+media, withoutNulls(value)); err != nil {
		return fmt.Errorf("the request was taken, and is described otherwise: %w", err)
	}
	return nil
}

// withoutNulls leaves out members that are null, which is the same as not saying them,
// but for an input.
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
