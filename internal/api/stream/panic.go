package stream

import (
	"log/slog"
	"runtime/debug"
)

// logPanic logs a panic of its caller, which must defer it. It is for goroutines that outlast
// their handler, where net/http recovers no panic.
func logPanic(log *slog.Logger, message string) {
	if p := recover(); p != nil {
		log.Error(message, "panic", p, "stack", string(debug.Stack()))
	}
}
