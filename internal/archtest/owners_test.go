package archtest

import (
	"go/ast"
	"strings"
	"testing"
)

// An API cannot forget whose data it reads, because each read of the engine asks for an owner, and
// it cannot choose one: it has no owner but those of the gate's Caller and of what it has read.
// Only the gate makes callers.
func TestOnlyTheGateNamesOwners(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.pkg, "internal/api/") || s.pkg == "internal/api/gate" {
			continue
		}
		checked++
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if what := namesOwner(n); what != "" {
				t.Errorf("%s: %s: take the owner of gate.CallerFrom", s.file, what)
			}
			return true
		})
	}
	if checked < 20 {
		t.Errorf("only %d files were checked", checked)
	}
}

// namesOwner returns how a node makes an owner or a caller; "" if it does not.
func namesOwner(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CompositeLit:
		if isName(n.Type, "job", "Owner") || isName(n.Type, "gate", "Caller") {
			return "it makes an owner or a caller"
		}
	case *ast.ValueSpec:
		if isName(n.Type, "job", "Owner") || isName(n.Type, "gate", "Caller") {
			return "it declares an owner or a caller without a value"
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "new" && len(n.Args) == 1 && (isName(n.Args[0], "job", "Owner") || isName(n.Args[0], "gate", "Caller")) {
			return "it makes an owner or a caller"
		}
		if isName(n.Fun, "job", "WholeTenant") {
			return "it names a whole tenant"
		}
	case *ast.AssignStmt:
		for _, to := range n.Lhs {
			field, ok := to.(*ast.SelectorExpr)
			if ok && (field.Sel.Name == "Tenant" || field.Sel.Name == "User") && isOwner(field.X) {
				return "it changes the tenant or the user of an owner"
			}
		}
	}
	return ""
}

// isOwner reports whether an expression is named as owners are.
func isOwner(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name == "Owner"
	case *ast.Ident:
		return e.Name == "owner"
	}
	return false
}

// isName reports whether an expression is pkg.name.
func isName(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}
