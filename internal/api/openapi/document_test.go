package openapi

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// testDocument returns the whole document.
func testDocument(t *testing.T) tree {
	t.Helper()
	doc, err := loadDocument()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentIsJSON(t *testing.T) {
	t.Parallel()
	text, err := JSON()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string
		Every   any `json:"x-every-call"`
	}
	if err := json.Unmarshal(text, &doc); err != nil || doc.OpenAPI != "3.1.0" || doc.Every != nil {
		t.Errorf("%+v, %v", doc, err)
	}
}

// In a YAML flow mapping a comma ends an unquoted text and begins a key without a value.
func TestDescriptionsWithCommasAreQuoted(t *testing.T) {
	t.Parallel()
	var look func(place string, x tree)
	look = func(place string, x tree) {
		for _, p := range x.pairs() {
			if strings.Contains(p.key, " ") {
				t.Errorf("%s has a member %q: put the sentence before it in quotes", place, p.key)
			}
			look(place+"/"+p.key, p.value)
		}
		for i, item := range x.items() {
			look(fmt.Sprint(place, "/", i), item)
		}
	}
	look("", testDocument(t))
}

func TestReferencesResolve(t *testing.T) {
	t.Parallel()
	doc := testDocument(t)
	var look func(x tree)
	look = func(x tree) {
		if ref := x.ref(); ref != "" && doc.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...).node == nil {
			t.Errorf("nothing is at %s", ref)
		}
		for _, p := range x.pairs() {
			look(p.value)
		}
		for _, item := range x.items() {
			look(item)
		}
	}
	look(doc)
}

func TestOperationsAreDescribed(t *testing.T) {
	t.Parallel()
	doc := testDocument(t)
	var tags, ids []string
	for _, tag := range doc.at("tags").items() {
		tags = append(tags, tag.at("name").text())
	}
	for _, c := range operations(doc) {
		name := c.method + " " + c.path
		id := c.at("operationId").text()
		if id == "" || slices.Contains(ids, id) {
			t.Errorf("%s: its operationId %q is missing, or another's", name, id)
		}
		ids = append(ids, id)
		if c.at("summary").text() == "" || len(c.at("tags").items()) != 1 || !slices.Contains(tags, c.at("tags").items()[0].text()) {
			t.Errorf("%s has no summary, or not one tag of %v", name, tags)
		}
		for _, p := range append(c.at("parameters").items(), c.pathParameters...) {
			if p.ref() == "" && (p.at("description").text() == "" || p.at("schema").node == nil) {
				t.Errorf("%s: the parameter %s has no description, or no schema", name, p.at("name").text())
			}
		}
		for _, m := range strings.FieldsFunc(c.path, func(r rune) bool { return r == '/' }) {
			if strings.HasPrefix(m, "{") && !hasPathParameter(doc, c, strings.Trim(m, "{}")) {
				t.Errorf("%s does not describe %s", name, m)
			}
		}
	}
}

func hasPathParameter(doc tree, c operation, name string) bool {
	for _, p := range c.pathParameters {
		if p.ref() != "" {
			p = doc.at(strings.Split(strings.TrimPrefix(p.ref(), "#/"), "/")...)
		}
		if p.at("name").text() == name && p.at("in").text() == "path" && p.at("required").text() == "true" {
			return true
		}
	}
	return false
}

func TestDocumentListsServerCodes(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, code := range testDocument(t).at("components", "schemas", "Code", "enum").items() {
		listed = append(listed, code.text())
	}
	there := append(codesIn(t, "../../job/error.go"), codesIn(t, "../problem.go")...)
	slices.Sort(listed)
	slices.Sort(there)
	if !slices.Equal(listed, there) {
		t.Errorf("the document has the codes\n%v\nthe server has\n%v", listed, there)
	}
}

// codesIn returns the constants of type Code in a file.
func codesIn(t *testing.T, file string) (codes []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil || len(spec.Values) != 1 {
			return true
		}
		kind := ""
		switch named := spec.Type.(type) {
		case *ast.Ident:
			kind = named.Name
		case *ast.SelectorExpr:
			kind = named.Sel.Name
		}
		if text, ok := spec.Values[0].(*ast.BasicLit); ok && kind == "Code" {
			code, _ := strconv.Unquote(text.Value)
			codes = append(codes, code)
		}
		return true
	})
	if len(codes) == 0 {
		t.Fatalf("%s has no codes: they are written in a way that this test does not see", file)
	}
	return codes
}

// Each error code is described under the status that the server gives it.
func TestEveryCodeHasStatus(t *testing.T) {
	t.Parallel()
	doc := testDocument(t)
	for _, c := range operations(doc) {
		for _, r := range c.at("responses").pairs() {
			for _, code := range errorCodes(doc, r.value) {
				if want := fmt.Sprint(api.StatusOf(job.Code(code))); want != r.key {
					t.Errorf("%s %s describes %s as %s; the server has %s", c.method, c.path, code, r.key, want)
				}
			}
		}
	}
}

// The limits in the document are those of the server.
func TestDocumentHasServerLimits(t *testing.T) {
	t.Parallel()
	schemas := testDocument(t).at("components", "schemas")
	for place, want := range map[string]any{
		"Submission/properties/key/maxLength":                   job.MaxKey,
		"Submission/properties/priority/minimum":                job.HighestPriority,
		"Submission/properties/priority/maximum":                job.LowestPriority,
		"Submission/properties/priority/default":                job.DefaultPriority,
		"Submission/properties/max_attempts/maximum":            job.MaxAttempts,
		"Submission/properties/delay_s/maximum":                 job.MaxDuration.Seconds(),
		"Submission/properties/abandon_after_s/anyOf/1/minimum": job.MinAbandon.Seconds(),
		"QueueName/maxLength":                                   job.MaxQueueName,
		"Metadata/maxProperties":                                job.MaxMetadata,
		"Metadata/propertyNames/maxLength":                      job.MaxMetaKey,
		"Metadata/additionalProperties/maxLength":               job.MaxMetaValue,
		"Batch/properties/jobs/maxItems":                        job.MaxBatch,
		"Job/properties/files/maxItems":                         job.MaxFiles,
		"File/properties/name/maxLength":                        job.MaxFileName,
		"JobList/properties/data/maxItems":                      job.MaxListPage,
	} {
		x := schemas
		for key := range strings.SplitSeq(place, "/") {
			if i, err := strconv.Atoi(key); err == nil {
				x = x.items()[i]
				continue
			}
			x = x.at(key)
		}
		if got, err := strconv.ParseFloat(x.text(), 64); err != nil || fmt.Sprint(got) != fmt.Sprint(toFloat(want)) {
			t.Errorf("%s is %s, the server has %v", place, x.text(), want)
		}
	}
}

func toFloat(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	return v.(float64)
}

func TestDocumentListsServerStates(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, s := range testDocument(t).at("components", "schemas", "Status", "enum").items() {
		listed = append(listed, s.text())
	}
	if want := strings.Fields(strings.Trim(fmt.Sprint(job.States()), "[]")); !slices.Equal(listed, want) {
		t.Errorf("%v, want %v", listed, want)
	}
}
