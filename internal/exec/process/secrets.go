package process

import (
	"os"
	"regexp"
	"strings"
)

// secretName matches the names of variables whose values are secrets.
var secretName = regexp.MustCompile(`(?i)key|token|secret|passw|credential`)

// minSecret is the length of the shortest value that is removed: a shorter one may be a part of
// ordinary words.
const minSecret = 6

// secrets removes the secrets that the command gets in variables from what it prints on standard
// error: whoever submits a job reads its log and its message.
func (e *Executor) secrets() *strings.Replacer {
	var pairs []string
	for _, name := range e.config.Env {
		if value := os.Getenv(name); len(value) >= minSecret && secretName.MatchString(name) {
			pairs = append(pairs, value, "["+name+"]")
		}
	}
	return strings.NewReplacer(pairs...)
}
