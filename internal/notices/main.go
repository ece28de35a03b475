// Command notices writes the licenses and notices of everything that the program is built
// from, to standard output. THIRD_PARTY_NOTICES in the root is its output, and a test checks
// that it is current.
package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	text, err := generate()
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// platforms are those of the releases: each may be built from other modules.
var platforms = []string{"linux", "darwin"}

// module is one that the program is built from.
type module struct{ Path, Version, Dir string }

func generate() ([]byte, error) {
	modules, err := listModules()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("Meanwhile is built from Go's standard library and the modules below. Their licenses and\nnotices follow. This file is written by `make notices`.\n")
	for _, m := range modules {
		if err := writeModule(&out, m); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// listModules returns the modules of the program on all platforms, the standard library
// first.
func listModules() ([]module, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	found := map[string]module{}
	for _, platform := range platforms {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}", "github.com/meanwhile-run/meanwhile/cmd/meanwhile")
		cmd.Env = append(os.Environ(), "GOOS="+platform, "GOARCH=amd64", "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list for %s: %w", platform, err)
		}
		for line := range strings.Lines(string(out)) {
			if fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(fields) == 3 {
				found[fields[0]] = module{fields[0], fields[1], fields[2]}
			}
		}
	}
	list := []module{{Path: "The Go standard library", Dir: strings.TrimSpace(string(root))}}
	for _, path := range slices.Sorted(maps.Keys(found)) {
		list = append(list, found[path])
	}
	return list, nil
}

// legal matches the names of files with a license or a notice.
var legal = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([-._].*)?$`)

func writeModule(out *bytes.Buffer, m module) error {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Path, err)
	}
	wrote := false
	for _, e := range entries {
		if e.IsDir() || !legal.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return err
		}
		rule := strings.Repeat("=", 80)
		fmt.Fprintf(out, "\n%s\n%s %s: %s\n%s\n\n%s\n", rule, m.Path, m.Version, e.Name(), rule, bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r"), nil)))
		wrote = true
	}
	if !wrote {
		return fmt.Errorf("%s has no license in its root", m.Path)
	}
	return nil
}
