package stream

import (
	"log/slog"
	"runtime/debug"
)

// logPanic, deferred, logs a panic of what outlasts its handler.
func logPanic(log *slog.Logger, message string) {
	if p := recover(); p != nil {
		log.Error(message, "panic", p, "stack", string(debug.Stack()))
	}
}
