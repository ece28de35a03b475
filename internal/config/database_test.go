package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDatabaseComesFromKeyVariableFlagOrFile(t *testing.T) {
	t.Parallel()
	const url = "postgres://ann:s3cret@db.example.com/meanwhile"
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]Sources{
		"variable":              {Environ: []string{"MEANWHILE_DATABASE=" + url}},
		"flag":                  {Environ: []string{"MEANWHILE_DATABASE=postgres://other/one"}, Flags: map[string]string{"database": url}},
		"file of a credential":  {Environ: []string{"MEANWHILE_DATABASE_FILE=" + file}},
		"another name of a URL": {Flags: map[string]string{"database": url, "database-migrate": "false"}},
	} {
		cfg, err := Load(src)
		if err != nil || cfg.Database != url {
			t.Errorf("%s: %q, %v", name, cfg.Database, err)
		}
		if cfg.DatabaseMigrate != (src.Flags["database-migrate"] == "") {
			t.Errorf("%s: the schema is brought up to date: %v", name, cfg.DatabaseMigrate)
		}
	}
	if cfg := mustLoad(t, "database: "+url); cfg.Database != url {
		t.Errorf("key: %q", cfg.Database)
	}
}

// No message about a database shows its password.
func TestDatabaseIsChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"database: mysql://ann:s3cret@db.example.com/m":          "m.yaml:1: database: this must be the URL of a PostgreSQL database",
		"database: 'postgres://ann:s3cret%@db.example.com/m'":    "m.yaml:1: database: this must be the URL",
		"database: host=db.example.com password=s3cret":          "m.yaml:1: database: this must be the URL",
		"database: [s3cret]":                                     "m.yaml:1: database: this must be a text",
		"database_file: none":                                    "m.yaml:1: database_file: cannot read the URL of the database from none: no such file",
		"database: postgres://s3cret/m\ndatabase_file: none":     "m.yaml:2: database_file: m.yaml:1 names the database too",
		"database_file: /dev/null":                               "m.yaml:1: database_file: /dev/null is empty",
		"database: postgres://s3cret/m\ndatabase_migrate: never": "m.yaml:2: database_migrate: this must be true or false",
	} {
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the message has the password: %v", text, err)
		}
	}
}

func TestDatabasePlaceHasNoPassword(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://ann:s3cret@db.example.com:5433/jobs?sslmode=require": "the database jobs at db.example.com:5433",
		"postgres:///jobs?host=/run/postgresql&password=s3cret":          "the database jobs at /run/postgresql",
		"postgres://ann:s3cret@/jobs?host=db.example.com&port=5433":      "the database jobs at db.example.com:5433",
		"postgres://ann:s3cret@db.example.com":                           "the database at db.example.com",
		"postgres:///jobs":                                               "the database jobs",
		"postgres://":                                                    "the database of this machine",
		"postgres://ann:s3cret%@host":                                    "the configured database",
	} {
		if got := DatabasePlace(url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}
