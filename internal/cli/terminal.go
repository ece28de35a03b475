package cli

import (
	"os"
	"strings"
	"unicode"
)

// isTerminal reports whether f is a terminal. The null device is a character device too,
// so that it is excluded by name.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printable removes control characters other than line breaks and tabs. Text of a job may
// come from anywhere. On a terminal its control characters could move the cursor, rename
// the window or type commands.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
}

// oneLine returns printable text on one line, cut to a number of columns.
func oneLine(text string, columns int) string {
	return cut(strings.Join(strings.Fields(printable(text)), " "), columns)
}
