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

// spec is the parsed description. Its parts are named by JSON pointers.
type spec struct {
	// set once
	doc any
	mux *http.ServeMux // finds the operation of a request; it serves nothing

	mu       sync.Mutex
	compiler *jsonschema.Compiler          // guarded by mu
	schemas  map[string]*jsonschema.Schema // guarded by mu
}

const documentURL = "meanwhile:///openapi.json"

// loadSpec returns the description of the server. The first call parses it.
var loadSpec = sync.OnceValue(func() *spec {
	text, err := openapi.JSON()
	if err != nil {
		panic(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	s := &spec{doc: doc, mux: http.NewServeMux(), compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	s.compiler.AssertFormat()
	if err := s.compiler.AddResource(documentURL, doc); err != nil {
		panic(err)
	}
	for path, item := range s.at("/paths").(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				if path == "/" {
					path = "/{$}" // not every other path
				}
				s.mux.Handle(strings.ToUpper(method)+" "+path, http.NotFoundHandler())
			}
		}
	}
	return s
})

// operation returns the pointer to the operation of a request, or "". A path with its own
// entry never counts as another entry's path with a parameter: /v1/jobs/batch is not
// /v1/jobs/{id}.
func (s *spec) operation(r *http.Request) string {
	_, pattern := s.mux.Handler(r)
	method, path, ok := strings.Cut(strings.TrimSuffix(pattern, "{$}"), " ")
	if !ok || path != r.URL.Path && s.at("/paths/"+escape(r.URL.Path)) != nil {
		return ""
	}
	return "/paths/" + escape(path) + "/" + strings.ToLower(method)
}

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

func escape(key string) string { return escaper.Replace(key) }

// at returns the value at a pointer, or nil.
func (s *spec) at(pointer string) any {
	v := s.doc
	for key := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		in, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = in[strings.NewReplacer("~1", "/", "~0", "~").Replace(key)]
	}
	return v
}

// object returns the object at a pointer and its pointer. It follows references.
func (s *spec) object(pointer string) (map[string]any, string) {
	o, _ := s.at(pointer).(map[string]any)
	if ref, ok := o["$ref"].(string); ok && len(o) == 1 {
		return s.object(strings.TrimPrefix(ref, "#"))
	}
	return o, pointer
}

// validate checks JSON against the schema at a pointer.
func (s *spec) validate(pointer string, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	return s.validateValue(pointer, value)
}

func (s *spec) validateValue(pointer string, value any) error {
	schema, err := s.schema(pointer)
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func (s *spec) schema(pointer string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.schemas[pointer]; ok {
		return known, nil
	}
	schema, err := s.compiler.Compile(documentURL + "#" + (&url.URL{Fragment: pointer}).EscapedFragment())
	if err == nil {
		s.schemas[pointer] = schema
	}
	return schema, err
}
