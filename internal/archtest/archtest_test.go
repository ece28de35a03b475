package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestImportsAreAllowed(t *testing.T) {
	rooms := map[string]pkg{}
	for _, r := range packages {
		rooms[r.path] = r
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		r, ok := rooms[s.pkg]
		if !ok {
			t.Errorf("%s: the room %s is not in the plan; a new room is a decision: add it to table.go and DESIGN.md", s.file, s.pkg)
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
	there := map[string]bool{}
	for _, s := range sources(t) {
		there[s.pkg] = true
	}
	for _, r := range packages {
		if !there[r.path] {
			t.Errorf("the plan has a room %s, the module has none", r.path)
		}
	}
}

func TestForbiddenEdgeIsNotAllowed(t *testing.T) {
	for _, r := range packages {
		for _, to := range r.may {
			if accident := accidentFor(r.path, to); accident != "" {
				t.Errorf("the plan lets %s import %s, and a wall says: %s", r.path, to, accident)
			}
		}
	}
}

// The plan is enforced by refused alone, so it is shown here to refuse.
func TestForbiddenImportNamesAccident(t *testing.T) {
	for _, c := range []struct {
		room     pkg
		imported string
		want     string
	}{
		{pkg{path: "client"}, module + "/internal/job", "every user of the SDK"},
		{pkg{path: "client"}, "github.com/coder/websocket", "not a library of this room"},
		{pkg{path: "internal/engine"}, module + "/internal/store/sqlite", "one store only"},
		{pkg{path: "internal/api/jobs"}, module + "/internal/store/sqlite", "write around the commit loop"},
		{pkg{path: "internal/telemetry"}, module + "/internal/job", "the plan does not let"},
		{pkg{path: "internal/telemetry"}, "log/slog", ""},
		{pkg{path: "internal/watch", may: []string{"internal/job"}}, module + "/internal/job", ""},
		{pkg{path: "internal/job", libraries: []string{"github.com/google/uuid"}}, "github.com/google/uuid", ""},
	} {
		got := refusalFor(c.room, c.imported)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s → %s: %q, want %q", c.room.path, c.imported, got, c.want)
		}
	}
}

func TestProductionCodeDoesNotImportTesting(t *testing.T) {
	suites := []string{"internal/store/storetest", "internal/exec/exectest", "internal/api/openapi/openapitest", "internal/cutproxy"}
	for _, s := range sources(t) {
		if !s.test && !slices.Contains(suites, s.pkg) && slices.Contains(s.imports(), "testing") {
			t.Errorf("%s imports testing: its flags would be part of the program", s.file)
		}
	}
}

// In a bubble of testing/synctest a sleep is how time is moved by hand.
func TestTestsDoNotSleep(t *testing.T) {
	onlyInBubbles := []string{"internal/api/jobs/stream_test.go", "internal/engine/peers_test.go"} // what it has is called from bubbles
	for _, s := range sources(t) {
		inBubble := slices.Contains(s.imports(), "testing/synctest") || slices.Contains(onlyInBubbles, s.file)
		if s.test && calls(s.ast, "time", "Sleep") && !inBubble {
			t.Errorf("%s calls time.Sleep: a test waits for an event, or moves time by hand", s.file)
		}
	}
}

func TestNoPackageHasInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && !s.test && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: what happens at boot is told in internal/server", s.file)
			}
		}
	}
}

func TestPackageNamesSayPurpose(t *testing.T) {
	for _, s := range sources(t) {
		switch path.Base(s.pkg) {
		case "util", "utils", "common", "helpers", "models":
			t.Errorf("%s: a room is named for what it is for", s.file)
		}
	}
}

// refusalFor says why a room may not import a path; "" when it may.
func refusalFor(r pkg, imported string) string {
	to, ours := strings.CutPrefix(imported, module+"/")
	switch {
	case ours && slices.Contains(r.may, to):
		return ""
	case ours && accidentFor(r.path, to) != "":
		return accidentFor(r.path, to)
	case ours:
		return "the plan does not let " + r.path + " do so; see table.go"
	case !strings.Contains(strings.Split(imported, "/")[0], "."):
		return "" // the standard library
	case slices.ContainsFunc(r.libraries, func(l string) bool { return hasPathPrefix(imported, l) }):
		return ""
	}
	return "it is not a library of this room; see table.go"
}

// accidentFor finds the wall between two rooms.
func accidentFor(from, to string) string {
	for _, w := range forbidden {
		if matchesPattern(w.from, from) && matchesPattern(w.to, to) {
			return w.accident
		}
	}
	return ""
}

func matchesPattern(pattern, room string) bool {
	if prefix, open := strings.CutSuffix(pattern, "/…"); open {
		return strings.HasPrefix(room, prefix+"/")
	}
	return pattern == room
}

func hasPathPrefix(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

// calls says whether a file calls a function of a package by its usual name.
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
