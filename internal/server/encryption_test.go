package server

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// planted is in the input, the output, the result and the conversation of an encrypted server.
const planted = "marmalade-on-toast"

// storedBytes returns everything that the server's store has on the disk, or in the columns of its
// database.
func (s *testServer) storedBytes() []byte {
	s.t.Helper()
	cfg := s.cfg
	if cfg.Database == "" {
		var all [][]byte
		paths, err := filepath.Glob(databaseIn(cfg.Data) + "*")
		for _, path := range paths {
			raw, failed := os.ReadFile(path)
			all, err = append(all, raw), failed
		}
		if err != nil || len(paths) < 2 {
			s.t.Fatalf("%d files: %v", len(paths), err)
		}
		return bytes.Join(all, nil)
	}
	conn, err := pgx.Connect(s.t.Context(), cfg.Database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(s.t.Context()) }()
	var all []byte
	for _, column := range []string{"inputs.body", "results.body", "output.data", "records.body", "moves.data"} {
		table, name, _ := strings.Cut(column, ".")
		rows, err := conn.Query(s.t.Context(), "select "+name+" from "+table)
		if err != nil {
			s.t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, bytes.Join(list, nil)...)
	}
	return all
}

func withKeys(dir string, keys ...string) func(*config.Config) {
	return func(c *config.Config) { c.Data, c.Encryption.Keys = dir, keys }
}

// askAndEcho runs a job and a question with the planted text, and returns the id of the job.
func (s *testServer) askAndEcho() (id string) {
	s.t.Helper()
	status, answer := s.call(http.MethodPost, "/v1/jobs", fmt.Sprintf(`{"queue":"sim","input":{"echo":%q}}`, planted), "Prefer", "wait=60")
	if status != http.StatusOK {
		s.t.Fatalf("%d %v", status, answer)
	}
	id, _ = answer["id"].(string)
	s.ends(id, "succeeded") // with an output and a result that have the text too
	if status, answer := s.call(http.MethodPost, "/api/chat", fmt.Sprintf(`{"query":%q}`, planted)); status >= 300 {
		s.t.Fatalf("%d %v", status, answer)
	}
	return id
}

// An encrypted store does not have what jobs carry, neither in its files nor in the log, and answers
// as any other.
func TestEncryptedStoreHasNoPlainText(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), sealed.NewKey()
	s := serve(t, withKeys(dir, key))
	id := s.askAndEcho()
	if status, result := s.text(http.MethodGet, "/v1/jobs/"+id+"/result", ""); status != http.StatusOK || !strings.Contains(result, planted) {
		t.Errorf("the result is %d %s", status, result)
	}
	if bytes.Contains(s.storedBytes(), []byte(planted)) {
		t.Error("the store has plain text")
	}
	s.quit()

	plain := serve(t, withKeys(t.TempDir()))
	plain.askAndEcho()
	if !bytes.Contains(plain.storedBytes(), []byte(planted)) {
		t.Error("the test does not find plain text where it is")
	}
	plain.quit()
}

// A start without a key that the store needs is refused, and nothing is lost.
func TestStartWithoutTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	dir, key, next := t.TempDir(), sealed.NewKey(), sealed.NewKey()
	s := serve(t, withKeys(dir, key))
	id := s.askAndEcho()
	cfg := s.cfg
	s.quit()
	for what, keys := range map[string][]string{"no key": nil, "another key": {next}, "a word instead of a key": {"secret"}} {
		cfg.Encryption.Keys = keys
		opened, err := Open(t.Context(), cfg, s.components.log)
		if err == nil {
			_ = opened.Close()
		}
		if wrong := slices.Equal(keys, []string{"secret"}); err == nil || !wrong && job.CodeOf(err) != job.EncryptionKeyMissing {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), next) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
	for _, keys := range [][]string{{next, key}, {"clear", next, key}} {
		s = serve(t, withKeys(dir, keys...))
		if status, result := s.text(http.MethodGet, "/v1/jobs/"+id+"/result", ""); status != http.StatusOK || !strings.Contains(result, planted) {
			t.Errorf("the result is %d %s", status, result)
		}
		s.quit()
	}
}

// untilForgotten waits until the store needs only the keys of these rings.
func (s *testServer) untilForgotten(keys ...string) {
	s.t.Helper()
	want := 0
	for _, key := range keys {
		ring, err := sealed.Parse(key)
		if err != nil {
			s.t.Fatal(err)
		}
		want += len(ring.IDs())
	}
	for s.t.Context().Err() == nil {
		used, err := usedKeys(s.t.Context(), s.components.store)
		if err != nil {
			s.t.Fatal(err)
		}
		delete(used, sealed.KeyID{})
		if len(used) == want {
			return
		}
	}
	s.t.Fatal("the test was stopped before the values were sealed again")
}

// After the first key has changed, all values are sealed again, and the earlier key is no longer
// needed. The encryption can be turned on and off for what is stored.
func TestValuesAreSealedAgain(t *testing.T) {
	t.Parallel()
	dir, key, next := t.TempDir(), sealed.NewKey(), sealed.NewKey()
	s := serve(t, withKeys(dir))
	id := s.askAndEcho()
	s.quit()
	for _, step := range []struct{ with, need []string }{
		{[]string{key}, []string{key}},
		{[]string{next, key}, []string{next}},
		{[]string{next}, []string{next}},
		{[]string{"clear", next}, nil},
		{nil, nil},
	} {
		s = serve(t, func(c *config.Config) {
			withKeys(dir, step.with...)(c)
			if url, known := testDatabases.Load(dir); known {
				forgetServers(t, url.(string))
			}
		})
		s.untilForgotten(step.need...)
		if p, err := (&resealer{components: s.components}).pass(t.Context()); err == nil && len(step.with) > 0 {
			for p.To != s.components.store.ring.Current().String() || p.Ended.IsZero() {
				p, err = (&resealer{components: s.components}).pass(t.Context())
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if status, result := s.text(http.MethodGet, "/v1/jobs/"+id+"/result", ""); status != http.StatusOK || !strings.Contains(result, planted) {
			t.Errorf("with %d keys the result is %d %s", len(step.with), status, result)
		}
		s.quit()
	}
}

// A backup needs no key, names those that the copy needs, and does not have plain text.
func TestBackupOfAnEncryptedStore(t *testing.T) {
	t.Parallel()
	onlySQLite(t)
	dir, key := t.TempDir(), sealed.NewKey()
	s := serve(t, withKeys(dir, key))
	id := s.askAndEcho()
	to := filepath.Join(t.TempDir(), "copy")
	copied, err := Backup(t.Context(), dir, to, func(_, _ int64) {})
	if want := []string{s.components.store.ring.Current().String()}; err != nil || !slices.Equal(copied.Keys, want) {
		t.Errorf("the copy needs the keys %v, %v, want %v", copied.Keys, err, want)
	}
	s.quit()
	raw, err := os.ReadFile(databaseIn(to))
	if err != nil || bytes.Contains(raw, []byte(planted)) || bytes.Contains(raw, []byte(key)) {
		t.Errorf("the copy has plain text or the key: %v", err)
	}
	s = serve(t, withKeys(to, key))
	if status, result := s.text(http.MethodGet, "/v1/jobs/"+id+"/result", ""); status != http.StatusOK || !strings.Contains(result, planted) {
		t.Errorf("the result in the copy is %d %s", status, result)
	}
	s.quit()
}

// Keys come from a file too.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	if _, err := readRing(config.Encryption{KeyFile: path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("# one\n"+sealed.NewKey()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := readRing(config.Encryption{KeyFile: path})
	if err != nil || ring.Current() == (sealed.KeyID{}) {
		t.Errorf("%v", err)
	}
	if ring, err := readRing(config.Encryption{}); ring != nil || err != nil {
		t.Errorf("without keys: %v, %v", ring, err)
	}
}

// forgetServers makes a database believe that no server has used its keys for years.
func forgetServers(t *testing.T, database string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), `update records set body = convert_to(regexp_replace(convert_from(body, 'UTF8'), '"at":"[^"]*"', '"at":"2020-01-01T00:00:00Z"'), 'UTF8') where kind = 'encryption_key'`)
	if err != nil && !strings.Contains(err.Error(), "does not exist") { // the first start makes the table
		t.Fatal(err)
	}
}
