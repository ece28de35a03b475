package openapitest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/meanwhile-run/meanwhile/internal/api/openapi"
)

// spec is the description, ready to be held against. Places in it are JSON pointers.
type spec struct {
	// set once
	doc   any
	calls *http.ServeMux // knows which call a request is; nothing is ever served by it

	mu       sync.Mutex
	compiler *jsonschema.Compiler          // guarded by mu
	schemas  map[string]*jsonschema.Schema // guarded by mu
}

const documentURL = "meanwhile:///openapi.json"

// description is the server's own.
var description = sync.OnceValue(func() *spec {
	text, err := openapi.JSON()
	if err != nil {
		panic(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	s := &spec{doc: doc, calls: http.NewServeMux(), compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	s.compiler.AssertFormat()
	if err := s.compiler.AddResource(documentURL, doc); err != nil {
		panic(err)
	}
	for path, item := range s.at("/paths").(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				s.calls.Handle(strings.ToUpper(method)+" "+path, http.NotFoundHandler())
			}
		}
	}
	return s
})

// callOf is the place of the call that a request is; "" when it is none. A path that is
// described by itself is no other's with a parameter, whatever methods they have.
func (s *spec) callOf(r *http.Request) string {
	_, pattern := s.calls.Handler(r)
	method, path, ok := strings.Cut(pattern, " ")
	if !ok || path != r.URL.Path && s.at("/paths/"+escape(r.URL.Path)) != nil {
		return ""
	}
	return "/paths/" + escape(path) + "/" + strings.ToLower(method)
}

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

func escape(key string) string { return escaper.Replace(key) }

// at is what stands at a place; nil when nothing does.
func (s *spec) at(place string) any {
	v := s.doc
	for key := range strings.SplitSeq(strings.TrimPrefix(place, "/"), "/") {
		in, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = in[strings.NewReplacer("~1", "/", "~0", "~").Replace(key)]
	}
	return v
}

// object is the object at a place, and where it really stands if that is a reference.
func (s *spec) object(place string) (map[string]any, string) {
	o, _ := s.at(place).(map[string]any)
	if ref, ok := o["$ref"].(string); ok && len(o) == 1 {
		return s.object(strings.TrimPrefix(ref, "#"))
	}
	return o, place
}

// validate holds JSON against the schema at a place.
func (s *spec) validate(place string, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("it is no JSON: %w", err)
	}
	return s.validateValue(place, value)
}

func (s *spec) validateValue(place string, value any) error {
	schema, err := s.schema(place)
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func (s *spec) schema(place string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.schemas[place]; ok {
		return known, nil
	}
	schema, err := s.compiler.Compile(documentURL + "#" + (&url.URL{Fragment: place}).EscapedFragment())
	if err == nil {
		s.schemas[place] = schema
	}
	return schema, err
}
