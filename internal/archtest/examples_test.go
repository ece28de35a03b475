package archtest

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// optionTypes are the types whose functions each need an example of their own.
var optionTypes = map[string][]string{
	".":      {"Option", "QueueOption", "KindOption", "SubmitOption"},
	"client": {"Option"},
}

func TestEveryOptionHasExample(t *testing.T) {
	t.Parallel()
	examples, options := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			switch {
			case !ok || f.Recv != nil || optionTypes[s.pkg] == nil:
			case s.test:
				examples[s.pkg+" "+f.Name.Name] = true
			case f.Name.IsExported() && returnsOption(f, optionTypes[s.pkg]):
				options[s.pkg+" "+f.Name.Name] = true
			}
		}
	}
	for option := range options {
		pkg, name, _ := strings.Cut(option, " ")
		if !examples[pkg+" Example"+name] {
			t.Errorf("%s: the option %s needs a function Example%s", pkg, name, name)
		}
	}
	if len(options) < 20 {
		t.Errorf("only %d options were found: the test looks for the wrong types", len(options))
	}
}

func returnsOption(f *ast.FuncDecl, types []string) bool {
	if f.Type.Results == nil || len(f.Type.Results.List) != 1 {
		return false
	}
	result, ok := f.Type.Results.List[0].Type.(*ast.Ident)
	return ok && slices.Contains(types, result.Name)
}

// publicPackages are those that a program imports.
var publicPackages = []string{".", "client", "meanwhiletest"}

// calledByOthers are methods that programs do not call by name.
var calledByOthers = []string{"Error", "Unwrap", "MarshalJSON", "UnmarshalJSON"}

func TestEveryExportedFunctionIsUsedInExample(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	var exported []string
	for _, s := range sources(t) {
		if !slices.Contains(publicPackages, s.pkg) {
			continue
		}
		if s.test && strings.HasPrefix(filepath.Base(s.file), "example") {
			ast.Inspect(s.ast, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					used[s.pkg+" "+sel.Sel.Name] = true
				}
				return true
			})
		}
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && !s.test && isExported(f) && !slices.Contains(calledByOthers, f.Name.Name) {
				exported = append(exported, s.pkg+" "+f.Name.Name)
			}
		}
	}
	for _, function := range exported {
		if !used[function] {
			pkg, name, _ := strings.Cut(function, " ")
			t.Errorf("%s: no example calls %s", pkg, name)
		}
	}
	if len(exported) < 60 {
		t.Errorf("only %d functions were found: the test looks for the wrong packages", len(exported))
	}
}

// isExported reports whether a program can call f: its name and its receiver are exported.
func isExported(f *ast.FuncDecl) bool {
	exported := f.Name.IsExported()
	if f.Recv != nil {
		ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if ok {
				exported = exported && id.IsExported()
			}
			return !ok
		})
	}
	return exported
}

// codeFrom matches a code block that is copied from a tested Go file. It names the file and
// declarations in it; * is the whole file.
var codeFrom = regexp.MustCompile("(?s)<!-- code: (\\S+\\.go) ([^>]+) -->\n```go\n(.*?)```")

// The code of a page is that of an example or test, so that it compiles and works.
func TestDocumentationCodeIsTested(t *testing.T) {
	t.Parallel()
	found := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range codeFrom.FindAllStringSubmatch(string(text), -1) {
			found++
			want, err := codeOf(t, m[1], strings.Fields(m[2]))
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(page), err)
			} else if m[3] != want {
				t.Errorf("%s: the code of %s is not that of %s, which is:\n%s", filepath.Base(page), m[2], m[1], want)
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d blocks of code were found", found)
	}
}

// codeOf returns the source of declarations of a file.
func codeOf(t *testing.T, file string, names []string) (string, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return "", err
	}
	if slices.Equal(names, []string{"*"}) {
		return string(text), nil
	}
	var parts []string
	for _, name := range names {
		begin, end, ok := spanOf(string(text), name)
		if !ok {
			return "", fmt.Errorf("%s has no %s", file, name)
		}
		parts = append(parts, string(text)[begin:end]+"\n")
	}
	return strings.Join(parts, "\n"), nil
}

// spanOf returns where the declaration of a name begins, with its comment, and ends. The file
// is formatted by gofmt.
func spanOf(text, name string) (begin, end int, ok bool) {
	found := regexp.MustCompile(`(?m)^(//[^\n]*\n)*(func|type) (\([^)]*\) )?` + regexp.QuoteMeta(name) + `[ \[(]`).FindStringIndex(text)
	if found == nil {
		return 0, 0, false
	}
	last := strings.Index(text[found[0]:], "\n}\n")
	if last < 0 {
		return 0, 0, false
	}
	return found[0], found[0] + last + len("\n}"), true
}
