package process

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// secretName matches the names of variables whose values are secrets.
var secretName = regexp.MustCompile(`(?i)key|token|secret|passw|credential`)

// minSecret is the length of the shortest value that is removed: a shorter one may be a part of
// ordinary words.
const minSecret = 6

// secrets removes the secrets that the command gets in variables from what it prints on standard
// error, because the user who submitted the job reads its log and its message.
func (e *Executor) secrets() *strings.Replacer {
	type secret struct{ value, name string }
	var all []secret
	for _, name := range e.config.Env {
		if !secretName.MatchString(name) {
			continue
		}
		// Standard error is read line by line, and so are the lines of a key (PEM, JSON).
		for _, line := range strings.FieldsFunc(os.Getenv(name), isLineEnd) {
			if line = strings.TrimSpace(line); len(line) >= minSecret {
				all = append(all, secret{line, name})
			}
		}
	}
	// One secret may begin with another, and the first that fits is replaced.
	slices.SortStableFunc(all, func(a, b secret) int { return len(b.value) - len(a.value) })
	var pairs []string
	for _, s := range all {
		pairs = append(pairs, s.value, "["+s.name+"]")
	}
	return strings.NewReplacer(pairs...)
}

func isLineEnd(r rune) bool { return r == '\n' || r == '\r' }
