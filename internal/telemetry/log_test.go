package telemetry

import (
	"bytes"
	"strings"
	"testing"
)

func TestLogFormatDefaultsToJSONWithoutTerminal(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"text": "level=INFO msg=hello who=world",
		"json": `"level":"INFO","msg":"hello","who":"world"`,
		"auto": `"level":"INFO","msg":"hello","who":"world"`,
	} {
		var out bytes.Buffer
		NewLog(&out, "info", format).Info("hello", "who", "world")
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

func TestLogDropsMessagesBelowItsLevel(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]int{"debug": 4, "info": 3, "warn": 2, "error": 1, "": 3} {
		var out bytes.Buffer
		log := NewLog(&out, level, "text")
		log.Debug("a")
		log.Info("b")
		log.Warn("c")
		log.Error("d")
		if got := strings.Count(out.String(), "\n"); got != want {
			t.Errorf("level %q: %d lines, want %d", level, got, want)
		}
	}
}
