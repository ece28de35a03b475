// Package telemetry makes the log, the metrics and the traces of a server, and the HTTP
// middleware that records every request in all three.
package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLog makes the server's log on w. The level is debug, info, warn or error. The
// format is text or json; anything else is text when w is a terminal, where a
// person reads it, and JSON elsewhere, where a program does.
func NewLog(w io.Writer, level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: levelOf(level)}
	if format == "text" || format != "json" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// levelOf reads a level's name; info for a name that is none.
func levelOf(name string) slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(name)) != nil {
		return slog.LevelInfo
	}
	return level
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
