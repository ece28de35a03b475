package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// pages returns the Markdown pages of the repository, without those of test data.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "testdata", "node_modules"}, d.Name()):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDocumentationLinksResolve(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(l[1], "://") && !linkResolves(page, l[1]) {
				t.Errorf("%s links to %s, which does not exist", strings.TrimPrefix(page, root+"/"), l[1])
			}
		}
	}
}

// Table rows, code and single long words cannot be wrapped.
func TestDocumentationIsWrappedAt100Columns(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		inCode := false
		for i, line := range strings.Split(string(text), "\n") {
			trimmed := strings.TrimSpace(line)
			if strings.HasPrefix(trimmed, "```") {
				inCode = !inCode
			}
			wrappable := !inCode && !strings.HasPrefix(trimmed, "|") && strings.Contains(trimmed, " ")
			if columns := utf8.RuneCountInString(line); wrappable && columns > 100 {
				t.Errorf("%s:%d has %d columns", strings.TrimPrefix(page, root+"/"), i+1, columns)
			}
		}
	}
}

// linkResolves reports whether a link names an existing file and, with an anchor, a
// heading in it.
func linkResolves(page, to string) bool {
	file, anchor, _ := strings.Cut(to, "#")
	if file == "" {
		file = filepath.Base(page)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(page), file))
	if err != nil {
		info, err := os.Stat(filepath.Join(filepath.Dir(page), file))
		return err == nil && info.IsDir()
	}
	if anchor == "" {
		return true
	}
	for _, h := range heading.FindAllStringSubmatch(string(text), -1) {
		if anchorOf(h[1]) == anchor {
			return true
		}
	}
	return false
}

// anchorOf returns the anchor of a heading.
func anchorOf(title string) string {
	kept := strings.Map(func(r rune) rune {
		switch {
		case r == ' ', r == '-', r == '_', r >= '0' && r <= '9', r >= 'a' && r <= 'z':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, title)
	return strings.ReplaceAll(kept, " ", "-")
}
