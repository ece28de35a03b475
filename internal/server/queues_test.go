package server

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec/process"
)

func TestMissingCommandIsLoggedAtTheStart(t *testing.T) {
	t.Parallel()
	for command, warned := range map[string]bool{"sh": false, "./no-such-program": true, "/": true} {
		q := config.Defaults(config.Process)
		q.Process.Command = []string{command}
		var log bytes.Buffer
		_, _, err := makeExecutors(config.Config{Queues: map[string]config.Queue{"q": q}}, process.Config{}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil || strings.Contains(log.String(), "level=WARN") != warned {
			t.Errorf("%s: %v, %q", command, err, &log)
		}
	}
}
