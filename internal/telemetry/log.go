// Package telemetry has the log, the metrics and the traces of a server, and the HTTP
// middleware that records every request in all three.
package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLog returns a log that writes to w. The level is debug, info, warn or error; any other
// is info. The format is text or json; any other is text when w is a terminal, and JSON
// when it is not.
func NewLog(w io.Writer, level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil {
		opts.Level = l
	}
	if format == "text" || format != "json" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
