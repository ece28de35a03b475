package files

import (
	"strings"
	"unicode"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// cleanName derives a file name from the sender's name. It is safe in a directory, on a
// terminal and in an environment variable. It keeps what follows the last slash, without
// characters that are not printable, and without dots and spaces at the ends.
func cleanName(sent string) (string, error) {
	name := sent[strings.LastIndexAny(sent, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	name = strings.TrimRight(strings.TrimLeft(name, ". "), ". ")
	if name == "" {
		return "", job.Errorf(job.Invalid, "%s is not a valid file name: it needs a printable character that is neither a dot nor a space, after its last slash", job.Quote(sent))
	}
	if len(name) > job.MaxFileName {
		return "", job.Errorf(job.Invalid, "a file name has at most %d bytes; %s has more", job.MaxFileName, job.Quote(name))
	}
	return name, nil
}
