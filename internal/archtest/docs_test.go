package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

func TestDocumentationLinksResolve(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
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
