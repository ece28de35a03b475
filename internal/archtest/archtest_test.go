package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestImportsAreAllowed(t *testing.T) {
	t.Parallel()
	byPath := map[string]pkg{}
	for _, r := range packages {
		byPath[r.path] = r
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		r, ok := byPath[s.pkg]
		if !ok {
			t.Errorf("%s: the package %s is not in table.go; decide what it may import, then add it to table.go and DESIGN.md", s.file, s.pkg)
			continue
		}
		for _, imported := range s.imports() {
			if why := refusalFor(r, imported); why != "" {
				t.Errorf("%s imports %s: %s", s.file, imported, why)
			}
		}
	}
}

func TestTableHasOnlyExistingPackages(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, s := range sources(t) {
		there[s.pkg] = true
	}
	for _, r := range packages {
		if !there[r.path] {
			t.Errorf("table.go has the package %s, which does not exist", r.path)
		}
	}
}

func TestForbiddenEdgeIsNotAllowed(t *testing.T) {
	t.Parallel()
	for _, r := range packages {
		for _, to := range r.imports {
			if accident := accidentFor(r.path, to); accident != "" {
				t.Errorf("table.go allows and forbids that %s imports %s: %s", r.path, to, accident)
			}
		}
	}
}

// refusalFor enforces the table, so this test shows that it refuses imports.
func TestForbiddenImportNamesAccident(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pkg      pkg
		imported string
		want     string
	}{
		{pkg{path: "client"}, module + "/internal/job", "every user of the client"},
		{pkg{path: "client"}, "github.com/coder/websocket", "this package may not use this library"},
		{pkg{path: "internal/engine"}, module + "/internal/store/sqlite", "one store only"},
		{pkg{path: "internal/api/jobs"}, module + "/internal/store/sqlite", "write around the commit loop"},
		{pkg{path: "internal/telemetry"}, module + "/internal/job", "does not allow"},
		{pkg{path: "internal/telemetry"}, "log/slog", ""},
		{pkg{path: "internal/watch", imports: []string{"internal/job"}}, module + "/internal/job", ""},
		{pkg{path: "internal/job", libraries: []string{"github.com/google/uuid"}}, "github.com/google/uuid", ""},
	} {
		got := refusalFor(c.pkg, c.imported)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s → %s: %q, want %q", c.pkg.path, c.imported, got, c.want)
		}
	}
}

func TestProductionCodeDoesNotImportTesting(t *testing.T) {
	t.Parallel()
	suites := []string{"internal/store/storetest", "internal/exec/exectest", "internal/api/openapi/openapitest", "internal/cutproxy", "internal/pgtest", "meanwhiletest"}
	for _, s := range sources(t) {
		if !s.test && !slices.Contains(suites, s.pkg) && slices.Contains(s.imports(), "testing") {
			t.Errorf("%s imports testing: the program would have the flags of tests", s.file)
		}
	}
}

// In a bubble of testing/synctest a sleep only moves the fake clock.
func TestTestsDoNotSleep(t *testing.T) {
	t.Parallel()
	onlyInBubbles := []string{"internal/api/jobs/recorder_test.go", "internal/engine/peers_test.go"} // all callers are in bubbles
	for _, s := range sources(t) {
		inBubble := slices.Contains(s.imports(), "testing/synctest") || slices.Contains(onlyInBubbles, s.file)
		if s.test && calls(s.ast, "time", "Sleep") && !inBubble {
			t.Errorf("%s calls time.Sleep: a test waits for an event, or moves a fake clock", s.file)
		}
	}
}

func TestNoPackageHasInit(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && !s.test && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: internal/server must do everything at the start", s.file)
			}
		}
	}
}

func TestPackageNamesAreSpecific(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		switch path.Base(s.pkg) {
		case "util", "utils", "common", "helpers", "models":
			t.Errorf("%s: name a package after its purpose", s.file)
		}
	}
}

// refusalFor returns why r may not import a path; "" when it may.
func refusalFor(r pkg, imported string) string {
	to, ours := strings.CutPrefix(imported, module+"/")
	if imported == module {
		to, ours = ".", true
	}
	switch {
	case ours && slices.Contains(r.imports, to):
		return ""
	case ours && accidentFor(r.path, to) != "":
		return accidentFor(r.path, to)
	case ours:
		return "table.go does not allow it for " + r.path
	case !strings.Contains(strings.Split(imported, "/")[0], "."):
		return "" // the standard library
	case slices.ContainsFunc(r.libraries, func(l string) bool { return hasPathPrefix(imported, l) }):
		return ""
	}
	return "this package may not use this library; see table.go"
}

// accidentFor returns the accident of a forbidden import; "" for any other.
func accidentFor(from, to string) string {
	for _, w := range forbidden {
		if matchesPattern(w.from, from) && matchesPattern(w.to, to) {
			return w.accident
		}
	}
	return ""
}

func matchesPattern(pattern, path string) bool {
	if prefix, below := strings.CutSuffix(pattern, "/…"); below {
		return strings.HasPrefix(path, prefix+"/")
	}
	return pattern == path
}

func hasPathPrefix(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

// calls reports whether a file calls pkg.name.
func calls(f *ast.File, pkg, name string) bool {
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
				found = true
			}
		}
		return !found
	})
	return found
}
