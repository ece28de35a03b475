package config

import (
	"maps"
	"slices"
	"strings"
)

// misspelt refuses variables that are nearly the name of a known one. Others may belong to a
// model's key, to a command, or to a system such as Kubernetes (MEANWHILE_SERVICE_HOST).
func (l *loader) misspelt(known []string) {
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		own, ok := strings.CutPrefix(name, Variable(""))
		if !ok || slices.Contains(known, name) {
			continue
		}
		if own == "MODELS" || own == "QUEUES" {
			l.problem(name, "", "there is no such variable: %s are set in the configuration file", strings.ToLower(own))
			continue
		}
		for _, right := range known {
			if editDistance(name, right) <= min(len(own)/4, 2) {
				l.problem(name, "", "there is no such variable; is it to be %s?", right)
				break
			}
		}
	}
}

// editDistance returns how many bytes must be added, removed or replaced to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // the distances of a prefix of a to each prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
