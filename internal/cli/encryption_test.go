package cli

import (
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// The command reads the directories of servers that run, with and without encryption.
func TestEncryptionOfADirectory(t *testing.T) {
	t.Parallel()
	for want, keys := range map[string][]string{"no value is encrypted": nil, "last used 20": {strings.Repeat("5a", 32)}} {
		cfg := config.Default()
		cfg.Listen, cfg.Data, cfg.Encryption.Keys = "127.0.0.1:0", t.TempDir(), keys
		startServer(t, cfg)
		s := newTestEnv("")
		if code := s.run(t, "encryption", "--data", cfg.Data); code != exitOK || !strings.Contains(s.out.String(), want) {
			t.Errorf("exit status %d: %s%s", code, &s.out, &s.err)
		}
	}
	both := newTestEnv("")
	if code := both.run(t, "encryption", "--data", t.TempDir(), "--database", "postgres://x/y"); code != exitUsage {
		t.Errorf("with both: exit status %d", code)
	}
}
