package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/meanwhile-run/meanwhile"
	root   = "../.."
)

// source is one Go file of the module.
type source struct {
	file string // path from the root of the module
	pkg  string // its directory
	test bool
	ast  *ast.File
}

// imports returns the import paths of the file.
func (s source) imports() []string {
	var paths []string
	for _, spec := range s.ast.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, path)
	}
	return paths
}

// sources returns every Go file of the module, without those of modules in its directories.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsedSources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no Go files found: the test looks in the wrong place")
	}
	return all
}

// parsedSources parses the files once for all tests, which only read them.
var parsedSources = sync.OnceValues(func() (all []source, err error) {
	err = fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || isModule(path)):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		all = append(all, source{file: path, pkg: filepath.ToSlash(filepath.Dir(path)), test: strings.HasSuffix(name, "_test.go"), ast: tree})
		return err
	})
	return all, err
})

// isModule reports whether a directory has a module of its own.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(root, dir, "go.mod"))
	return err == nil
}
