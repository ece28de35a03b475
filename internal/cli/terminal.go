package cli

import (
	"os"
	"strings"
	"unicode"
)

// isTerminal says whether a person sits at the other end of f. The null device is
// a character device like a terminal, and nobody sits there.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printable takes from a text what a terminal would obey instead of showing:
// control characters other than line ends and tabs. A job's text comes from
// wherever its work took it, and must not move the reader's cursor, rename the
// window or type for them.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
}

// oneLine is a text as a cell of a table: printable, on one line, at most so many
// characters.
func oneLine(text string, most int) string {
	text = strings.Join(strings.Fields(printable(text)), " ")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most-1]) + "…"
	}
	return text
}
