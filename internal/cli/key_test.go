package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
)

var keyPattern = regexp.MustCompile(`^mw_[a-z2-7]{12}_[A-Za-z0-9_-]{43}\n$`)

// lines runs a command with --json and decodes each line that it prints.
func (s *testEnv) lines(t *testing.T, args ...string) (list []map[string]any) {
	t.Helper()
	s.out.Reset()
	if code := s.run(t, append(args, "--json")...); code != exitOK {
		t.Fatalf("%q: exit status %d: %s", args, code, &s.err)
	}
	for line := range strings.Lines(s.out.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, one)
	}
	return list
}

// accessPlaces are where keys and tenants may be: in a directory with and without a server, and in
// a database. Each is given by flags.
func accessPlaces(t *testing.T) map[string][]string {
	t.Helper()
	places := map[string][]string{"a directory": {"--data", filepath.Join(t.TempDir(), "data")}}
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	startServer(t, cfg)
	places["a server"] = []string{"--data", cfg.Data}
	if pgtest.Installed() || os.Getenv("MEANWHILE_CI") != "" {
		db := pgtest.Shared(t).Schema(t)
		if code := newTestEnv("").run(t, "migrate", "up", "--database", db.URL()); code != exitOK {
			t.Fatal(code)
		}
		places["a database"] = []string{"--database", db.URL()}
	}
	return places
}

func TestKeyCommands(t *testing.T) {
	t.Parallel()
	for name, place := range accessPlaces(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do := func(line string) []string { return append(strings.Fields(line), place...) }
			s := newTestEnv("")
			if code := s.run(t, do("key create --name root --role admin")...); code != exitOK || !keyPattern.MatchString(s.out.String()) {
				t.Fatalf("%d: %q %s", code, &s.out, &s.err)
			}
			s.wantErr(t, "The key root", "admin; it does not expire", "shown this once")
			if strings.Contains(s.err.String(), strings.TrimSpace(s.out.String())[16:]) {
				t.Error("the key is on standard error, which may be logged")
			}
			if code := newTestEnv("").run(t, do("tenant create shop --waiting 10 --submits-per-s 0.5")...); code != exitOK {
				t.Fatal(code)
			}
			made := newTestEnv("").lines(t, do("key create --tenant shop --name web --scopes submit,read,cancel --act-as --queues ocr,chat --expires 90d")...)[0]
			expires, err := time.Parse(time.RFC3339, made["expires_at"].(string))
			if left := time.Until(expires); err != nil || left > 90*24*time.Hour || left < 89*24*time.Hour || made["act_as"] != true || made["tenant"] != "shop" {
				t.Error(made, err)
			}
			rotated := newTestEnv("").lines(t, do("key rotate web --tenant shop --overlap 7d")...)[0]
			if rotated["replaces"] != made["id"] || rotated["key"] == made["key"] {
				t.Error(rotated)
			}
			ambiguous := newTestEnv("")
			if code := ambiguous.run(t, do("key revoke web --tenant shop")...); code != exitUsage {
				t.Error("two live keys of a name:", code)
			}
			ambiguous.wantErr(t, made["id"].(string)+", "+rotated["id"].(string))
			newTestEnv("").want(t, exitOK, made["id"].(string)+" (web) of the tenant shop is revoked\n", do("key revoke "+made["id"].(string))...)
			newTestEnv("").want(t, exitOK, rotated["id"].(string)+" (web) of the tenant shop is revoked\n", do("key revoke web --tenant shop")...)
			if list := newTestEnv("").lines(t, do("key list")...); len(list) != 3 || list[0]["name"] != "root" || list[0]["key"] != nil {
				t.Error(list)
			}
			table := newTestEnv("")
			if code := table.run(t, do("key list --state revoked")...); code != exitOK || strings.Count(table.out.String(), "chat,ocr  revoked") != 2 {
				t.Errorf("%d: %s", code, &table.out)
			}
		})
	}
}

// The commands that call a server send the key of the environment.
func TestCommandsSendKey(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Listen, cfg.Data = "127.0.0.1:0", t.TempDir()
	url := startServer(t, cfg)
	made := newTestEnv("")
	if code := made.run(t, "key", "create", "--name", "web", "--role", "submitter", "--act-as", "--data", cfg.Data); code != exitOK {
		t.Fatal(code)
	}
	without := newTestEnv(url)
	if code := without.run(t, "list"); code != exitError {
		t.Error("without a key:", code)
	}
	without.wantErr(t, "this server asks for a key")
	with := newTestEnv(url)
	with.Environ = append(with.Environ, "MEANWHILE_KEY="+strings.TrimSpace(made.out.String()))
	if code := with.run(t, "submit", "sim", "{}", "--wait"); code != exitOK {
		t.Errorf("with a key: %d: %s", code, &with.err)
	}
}

func TestTenantCommands(t *testing.T) {
	t.Parallel()
	for name, place := range accessPlaces(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do := func(line string) []string { return append(strings.Fields(line), place...) }
			newTestEnv("").want(t, exitOK, "the tenant shop is there; submits-per-s 0.5, waiting 10\n", do("tenant create shop --waiting 10 --submits-per-s 0.5")...)
			newTestEnv("").want(t, exitOK, "the tenant shop is changed; submits-per-s 0.5, running 3\n", do("tenant limits shop --waiting 0 --running 3")...)
			newTestEnv("").want(t, exitOK, "the tenant shop is active; submits-per-s 0.5, running 3\n", do("tenant limits shop")...)
			newTestEnv("").want(t, exitOK, "the tenant default is changed; burst 9\n", do("tenant limits default --burst 9")...)
			if list := newTestEnv("").lines(t, do("tenant list")...); len(list) != 2 || list[0]["name"] != "default" || list[1]["state"] != "active" {
				t.Error(list)
			}
			if code := newTestEnv("").run(t, do("tenant delete shop")...); code != exitUsage {
				t.Error("a tenant is deleted without --yes:", code)
			}
			newTestEnv("").want(t, exitOK, "the tenant shop is being deleted\n", do("tenant delete shop --yes")...)
		})
	}
}

func TestAccessCommandsRefuse(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	if code := newTestEnv("").run(t, "key", "create", "--name", "web", "--role", "viewer", "--data", data); code != exitOK {
		t.Fatal(code)
	}
	for _, tt := range []struct {
		line string
		code int
		says string
	}{
		{"key create --role viewer --data " + data, exitUsage, "--name"},
		{"key create --name a --scopes fly --data " + data, exitUsage, "the scopes are"},
		{"key create --name a --role viewer --tenant none --data " + data, exitNotFound, "no tenant"},
		{"key create --name web --role viewer --data " + data, exitError, "already"},
		{"key create --name a --role viewer --expires never --data " + data, exitUsage, "90d"},
		{"key create --name a --role viewer --expires 2001-01-01T00:00:00Z --data " + data, exitUsage, "has passed"},
		{"key revoke none --data " + data, exitNotFound, "no key"},
		{"key rotate web --overlap x --data " + data, exitUsage, "24h"},
		{"key rotate web --overlap 90d --data " + data, exitUsage, "0 to"},
		{"tenant create A --data " + data, exitUsage, "1 to 63"},
		{"tenant create b --waiting -1 --data " + data, exitUsage, "positive"},
		{"tenant create b --waiting 1.5 --data " + data, exitUsage, "waiting"},
		{"tenant delete default --yes --data " + data, exitError, "cannot be deleted"},
		{"key list --data " + data + "/none", exitError, "no data directory"},
		{"key list --data " + data + " --database postgres://x/y", exitUsage, "give one of them"},
	} {
		s := newTestEnv("")
		if code := s.run(t, strings.Fields(tt.line)...); code != tt.code || !strings.Contains(s.err.String(), tt.says) {
			t.Errorf("%s: exit status %d: %s", tt.line, code, &s.err)
		}
	}
}
