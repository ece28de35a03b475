package cli

import (
	"cmp"
	"path/filepath"
	"strings"
	"time"
)

// redrawEvery is the time of a step of the spinner.
const redrawEvery = 250 * time.Millisecond

// programName returns how the user can call the program again, from the name by which it was
// called. 'go run' calls a file that it deletes afterwards.
func programName(called string) string {
	if strings.Contains(filepath.ToSlash(called), "/go-build") {
		return "go run ./cmd/meanwhile"
	}
	return shellQuote(called)
}

// commandText returns a command such as "meanwhile watch" as the user can type it.
func (e *Env) commandText(command string) string {
	return cmp.Or(e.Program, "meanwhile") + strings.TrimPrefix(command, "meanwhile")
}

// shellQuote quotes a word for a POSIX shell, where it needs that.
func shellQuote(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./:@%+,=", r)
	}
	if word != "" && strings.TrimLeftFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
