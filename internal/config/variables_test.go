package config

import (
	"strings"
	"testing"
)

// A variable that is nearly the name of one would change nothing, in silence. Other variables
// of the same beginning belong to somebody else.
func TestMisspeltVariableIsRefused(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"MEANWHILE_LISTN=x":           "MEANWHILE_LISTN: there is no such variable; is it to be MEANWHILE_LISTEN?",
		"MEANWHILE_SHUTDOWN_GRACE=3":  "is it to be MEANWHILE_SHUTDOWN_GRACE_S?",
		"MEANWHILE_LOGLEVEL=debug":    "is it to be MEANWHILE_LOG_LEVEL?",
		"MEANWHILE_CONFIGS=x":         "is it to be MEANWHILE_CONFIG?",
		"MEANWHILE_QUEUES=x":          "MEANWHILE_QUEUES: there is no such variable: queues are set in the configuration file",
		"MEANWHILE_LISTEN=[::1]:0":    "",
		"MEANWHILE_SERVER=x":          "",
		"MEANWHILE_USER=ann":          "",
		"MEANWHILE_PORT=tcp://x":      "",
		"MEANWHILE_SERVICE_HOST=x":    "",
		"MEANWHILE_SERVICE_PORT=8080": "",
		"MEANWHILE_OPENAI_KEY=x":      "",
		"MEANWHILE_FILE_1=x":          "",
		"MEANWHILE_ATTEMPT=x":         "",
		"LISTN=x":                     "",
	} {
		_, err := Load(Sources{Environ: []string{variable}})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", variable, err)
		}
	}
}
