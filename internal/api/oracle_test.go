package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// faulty reports, without the scanner, whether valid JSON has a fault that the scanner
// refuses: invalid UTF-8, U+0000, half a surrogate pair (which encoding/json replaces), a
// repeated name, or too much depth.
func faulty(data []byte) bool {
	if !utf8.Valid(data) {
		return true
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return faultyValue(dec, 0)
}

func faultyValue(dec *json.Decoder, depth int) bool {
	token, err := dec.Token()
	if err != nil {
		return false
	}
	switch token := token.(type) {
	case string:
		return faultyText(token)
	case json.Delim:
		return depth >= job.MaxDepth || faultyMembers(dec, depth+1, token == '{')
	}
	return false
}

func faultyMembers(dec *json.Decoder, depth int, object bool) bool {
	names := map[string]bool{}
	for dec.More() {
		if object {
			name, _ := dec.Token()
			text, _ := name.(string)
			if names[text] || faultyText(text) {
				return true
			}
			names[text] = true
		}
		if faultyValue(dec, depth) {
			return true
		}
	}
	_, _ = dec.Token()
	return false
}

func faultyText(text string) bool { return strings.ContainsAny(text, "\x00\uFFFD") }
