package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// newKeyNamed decides to make a key.
func newKeyNamed(name string, id *string) func(*access.Directory, time.Time) (access.Change, error) {
	return func(d *access.Directory, now time.Time) (access.Change, error) {
		*id = access.NewKeyID()
		return d.CreateKey(access.Key{ID: *id, Name: name, Scopes: access.Read}, now)
	}
}

// open opens another registry on the server's store, as another process would.
func (s *testServer) openRegistry() *registry {
	s.t.Helper()
	r, err := openRegistry(s.t.Context(), s.components.store, slog.New(slog.NewTextHandler(s.t.Output(), nil)))
	if err != nil {
		s.t.Fatal(err)
	}
	r.write = s.components.engine.Write
	return r
}

// Of processes that change keys at the same time none undoes what another did, and none makes a
// name twice.
func TestRegistriesOfOneStoreChangeKeysAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	const each = 8
	var all sync.WaitGroup
	var names sync.Map
	for i := range 3 {
		r := s.openRegistry()
		all.Go(func() {
			for n := range each {
				var id string
				if err := r.Change(t.Context(), newKeyNamed(fmt.Sprintf("own-%d-%d", i, n), &id)); err != nil {
					t.Error(err)
				}
				err := r.Change(t.Context(), newKeyNamed(fmt.Sprintf("shared-%d", n), &id))
				if err != nil {
					if job.CodeOf(err) != job.Conflict {
						t.Errorf("the name shared-%d: %v", n, err)
					}
				} else if _, taken := names.LoadOrStore(n, id); taken {
					t.Errorf("the name shared-%d was made twice", n)
				}
			}
		})
	}
	all.Wait()
	d, err := s.openRegistry().Refresh(t.Context())
	if err != nil || len(d.Keys()) != 4*each || d.Sequence != 4*each || !d.KeysOn {
		t.Errorf("%d keys after %d changes, %v", len(d.Keys()), d.Sequence, err)
	}
}

// A change of one registry is complete in another, also when it comes between its reads.
func TestRegistryLoadsOneMoment(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	writer := s.openRegistry()
	var id string
	reader := &registry{rows: betweenReads{s.components.store, func(kind string) {
		if kind == tenantRow && id == "" {
			if err := writer.Change(t.Context(), newKeyNamed("late", &id)); err != nil {
				t.Error(err)
			}
		}
	}}, wake: make(chan struct{}, 1), unread: map[string]bool{}}
	reader.current.Store(access.NewDirectory(0, false, nil, nil))
	var first string
	if err := writer.Change(t.Context(), newKeyNamed("first", &first)); err != nil {
		t.Fatal(err)
	}
	d, err := reader.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.Key(id); !ok || d.Sequence != 2 {
		t.Errorf("after change %d the late key is missing", d.Sequence)
	}
}

// betweenReads calls before a read of rows.
type betweenReads struct {
	registryRows
	before func(kind string)
}

func (b betweenReads) Rows(ctx context.Context, of store.RowSet, page store.RowPage) ([]store.Row, error) {
	b.before(of.Kind)
	return b.registryRows.Rows(ctx, of, page)
}

// A row of a newer version is left out, and the others count. A registry that cannot read keeps
// what it has.
func TestRegistryLeavesOutWhatItCannotRead(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	r := s.openRegistry()
	var id string
	if err := r.Change(t.Context(), newKeyNamed("web", &id)); err != nil {
		t.Fatal(err)
	}
	newer := store.Row{Owner: registryOwner, Kind: keyRow, ID: "newer", Body: []byte(`{"id":"newer","only_mondays":true}`)}
	if err := s.components.engine.Write(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	again := s.openRegistry()
	if _, ok := again.Find(id); !ok || len(again.current.Load().Keys()) != 1 || !again.On() {
		t.Error("the key that can be read is missing")
	}
	again.rows = failingRows{again.rows}
	if _, err := again.Refresh(t.Context()); err == nil {
		t.Error("a failed read is not reported")
	}
	if _, ok := again.Find(id); !ok {
		t.Error("after a failed read the keys are gone")
	}
}

type failingRows struct{ registryRows }

func (failingRows) Rows(context.Context, store.RowSet, store.RowPage) ([]store.Row, error) {
	return nil, errors.New("broken")
}

// Keys turn on with the first one, and stay on across restarts, whatever becomes of it.
func TestKeysStayOnAfterTheLastOne(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	r := s.openRegistry()
	var id string
	if r.On() {
		t.Error("keys are on without a key")
	}
	if err := r.Change(t.Context(), newKeyNamed("web", &id)); err != nil {
		t.Fatal(err)
	}
	err := r.Change(t.Context(), func(d *access.Directory, _ time.Time) (access.Change, error) {
		return access.Change{GoneKeys: []string{id}}, nil
	})
	if again := s.openRegistry(); err != nil || !again.On() || len(again.current.Load().Keys()) != 0 {
		t.Error("keys are off again", err)
	}
}

// Keys and tenants are in a backup, and in a restarted server.
func TestKeysAreBackedUp(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, nil)
	text := s.newKey(`{"name":"web","role":"admin"}`)
	s.newTenant(`{"name":"shop","limits":{"waiting":7}}`)
	to := t.TempDir() + "/copy"
	if _, err := Backup(t.Context(), s.cfg.Data, to, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	s.cfg.Data = to
	copied := restart(s)
	id, secret, _ := access.ParseKeyText(text)
	k, ok := copied.components.registry.Find(id)
	if tenant := copied.components.registry.Tenant("shop"); !ok || !k.Matches(secret) || tenant == nil || tenant.Limits.Waiting != 7 || !copied.components.registry.On() {
		t.Errorf("in the copy are %v and %v", k, tenant)
	}
	if err := Check(t.Context(), s.cfg.Data, func(defect string) { t.Error(defect) }); err != nil {
		t.Error(err)
	}
	if strings.Contains(string(access.EncodeKey(k)), text[len(text)-20:]) {
		t.Error("the copy has the secret")
	}
}

// A move carries keys and tenants into the database.
func TestKeysAreMoved(t *testing.T) {
	onlySQLite(t)
	t.Parallel()
	s := serve(t, nil)
	text := s.newKey(`{"name":"web","role":"admin"}`)
	s.newTenant(`{"name":"shop","limits":{"waiting":7}}`)
	s.quit()
	db := pgtest.Shared(t).Schema(t)
	if _, err := s.moveTo(db.URL()); err != nil {
		t.Fatal(err)
	}
	moved := serve(t, func(c *config.Config) { c.Database = db.URL() })
	id, secret, _ := access.ParseKeyText(text)
	k, ok := moved.components.registry.Find(id)
	if tenant := moved.components.registry.Tenant("shop"); !ok || !k.Matches(secret) || tenant == nil || tenant.Limits.Waiting != 7 || !moved.components.registry.On() {
		t.Errorf("in the database are %v and %v", k, tenant)
	}
	if err := CheckDatabase(t.Context(), moved.cfg, func(defect string) { t.Error(defect) }); err != nil {
		t.Error(err)
	}
}
