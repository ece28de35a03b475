package files

import (
	"strings"
	"unicode"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// cleanName makes a name that is safe in a directory of its own, on a terminal
// and in a variable of the environment, of what a sender calls a file.
func cleanName(sent string) (string, error) {
	name := sent[strings.LastIndexAny(sent, `/\`)+1:]
	name = strings.Map(printable, strings.ToValidUTF8(name, ""))
	name = strings.TrimRight(strings.TrimLeft(name, ". "), ". ")
	if name == "" {
		return "", job.Errorf(job.Invalid, "%s is no name of a file", job.Quote(sent))
	}
	if len(name) > job.MaxFileName {
		return "", job.Errorf(job.Invalid, "the name of a file has at most %d bytes; %s has more", job.MaxFileName, job.Quote(name))
	}
	return name, nil
}

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return -1
	}
	return r
}
