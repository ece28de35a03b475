package access

import (
	"fmt"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// directory applies changes one after the other.
type directory struct {
	*Directory
	t *testing.T
}

func newTestDirectory(t *testing.T) *directory {
	return &directory{NewDirectory(0, false, nil, nil), t}
}

func (d *directory) must(c Change, err error) Change {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	d.Directory = d.Apply(c)
	return c
}

// make adds a key and returns its id.
func (d *directory) make(k Key, now time.Time) string {
	d.t.Helper()
	if k.ID = NewKeyID(); k.Scopes == 0 {
		k.Scopes = Read
	}
	return d.must(d.CreateKey(k, now)).Keys[0].ID
}

func (d *directory) state(id string, now time.Time) KeyState {
	d.t.Helper()
	k, ok := d.Key(id)
	if !ok {
		d.t.Fatal("there is no key", id)
	}
	return k.State(now)
}

func wantCode(t *testing.T, err error, code job.Code) {
	t.Helper()
	if job.CodeOf(err) != code {
		t.Errorf("%v, want %s", err, code)
	}
}

func TestKeysStayOn(t *testing.T) {
	t.Parallel()
	d := newTestDirectory(t)
	d.must(d.CreateTenant("shop", Limits{}, noon))
	if d.KeysOn {
		t.Error("a tenant turns keys on")
	}
	id := d.make(Key{Name: "web"}, noon)
	d.must(d.RevokeKey(id, noon))
	d.must(d.Prune(noon.Add(KeepDead)), nil)
	if _, ok := d.Key(id); ok || !d.KeysOn || d.Sequence != 4 {
		t.Errorf("after the last key: %+v", d.Directory)
	}
}

func TestCreateKeyIsRefused(t *testing.T) {
	t.Parallel()
	d := newTestDirectory(t)
	d.must(d.CreateTenant("shop", Limits{}, noon))
	d.make(Key{Name: "web", Tenant: "shop", Expires: noon.Add(time.Hour)}, noon)
	for _, tt := range []struct {
		key  Key
		code job.Code
	}{
		{Key{Name: "web", Tenant: "none", Scopes: Read}, job.NotFound},
		{Key{Name: "web", Tenant: "shop", Scopes: Read}, job.Conflict},
		{Key{Name: "web", Tenant: "shop"}, job.Invalid},
		{Key{Name: "old", Scopes: Read, Expires: noon}, job.Invalid},
		{Key{Name: "old", Scopes: Read, Expires: noon.Add(MaxLifetime + 1)}, job.Invalid},
	} {
		_, err := d.CreateKey(tt.key, noon)
		wantCode(t, err, tt.code)
	}
	d.make(Key{Name: "web"}, noon)                                  // of another tenant
	d.make(Key{Name: "web", Tenant: "shop"}, noon.Add(2*time.Hour)) // the first one has expired
}

func TestNumberOfKeysIsBounded(t *testing.T) {
	t.Parallel()
	var keys []*Key
	for i := range MaxKeys {
		keys = append(keys, &Key{ID: fmt.Sprint(i), Name: fmt.Sprint(i), Scopes: Read, Revoked: noon})
	}
	d := NewDirectory(1, true, keys, nil)
	_, err := d.CreateKey(Key{ID: NewKeyID(), Name: "more", Scopes: Read}, noon)
	wantCode(t, err, job.Conflict)
	if c := d.Prune(noon.Add(KeepDead)); len(c.GoneKeys) != pruneAtOnce {
		t.Errorf("one change forgets %d keys", len(c.GoneKeys))
	}
	if c := d.Prune(noon.Add(KeepDead - 1)); !c.Empty() {
		t.Error("keys are forgotten too early")
	}
}

func TestRotationLetsTheOldKeyExpire(t *testing.T) {
	t.Parallel()
	d := newTestDirectory(t)
	first := d.make(Key{Name: "web", Scopes: Submit | Read, Queues: []string{"chat"}, Expires: noon.Add(90 * time.Hour)}, noon)
	later := noon.Add(10 * time.Hour)
	c := d.must(d.RotateKey(first, Rotation{ID: NewKeyID(), Overlap: time.Hour}, later))
	second := c.Keys[0]
	if second.Replaces != first || second.Name != "web" || second.Scopes != Submit|Read || len(second.Queues) != 1 || !second.Created.Equal(later) || !second.Expires.Equal(later.Add(90*time.Hour)) {
		t.Errorf("the new key is %+v", second)
	}
	for _, tt := range []struct {
		at   time.Duration
		want KeyState
	}{{time.Hour - 1, Live}, {time.Hour, Expired}} {
		if got := d.state(first, later.Add(tt.at)); got != tt.want || d.state(second.ID, later.Add(tt.at)) != Live {
			t.Errorf("after %s the old key is %s", tt.at, got)
		}
	}
	_, err := d.RotateKey(first, Rotation{ID: NewKeyID()}, later)
	wantCode(t, err, job.Conflict) // it was rotated already
	_, err = d.RotateKey(first, Rotation{ID: NewKeyID()}, later.Add(time.Hour))
	wantCode(t, err, job.Conflict) // it has expired
	_, err = d.RotateKey(second.ID, Rotation{ID: NewKeyID(), Overlap: MaxOverlap + 1}, later)
	wantCode(t, err, job.Invalid)
	_, err = d.RotateKey(second.ID, Rotation{ID: NewKeyID(), Expires: later}, later)
	wantCode(t, err, job.Invalid)
	_, err = d.RotateKey("none", Rotation{ID: NewKeyID()}, later)
	wantCode(t, err, job.NotFound)

	// An overlap does not let a key live longer, and without one it expires at once.
	d.must(d.RotateKey(second.ID, Rotation{ID: NewKeyID(), Overlap: MaxOverlap}, later))
	if k, _ := d.Key(second.ID); !k.Expires.Equal(second.Expires) {
		t.Error("the overlap has made the expiry", k.Expires)
	}
	third := d.make(Key{Name: "worker"}, noon)
	made := d.must(d.RotateKey(third, Rotation{ID: NewKeyID()}, later)).Keys[0]
	if d.state(third, later) != Expired || !made.Expires.IsZero() {
		t.Error("without an overlap both are live, or the new one expires")
	}
}

func TestRevokedKeyStaysRevoked(t *testing.T) {
	t.Parallel()
	d := newTestDirectory(t)
	id := d.make(Key{Name: "web"}, noon)
	d.must(d.RevokeKey(id, noon))
	if c, err := d.RevokeKey(id, noon.Add(time.Hour)); err != nil || !c.Empty() {
		t.Error(c, err)
	}
	_, err := d.RevokeKey("none", noon)
	wantCode(t, err, job.NotFound)
}

func TestTenantIsDeletedInPieces(t *testing.T) {
	t.Parallel()
	d := newTestDirectory(t)
	d.must(d.CreateTenant("shop", Limits{Waiting: 5}, noon))
	var ids []string
	for i := range pruneAtOnce + 1 {
		ids = append(ids, d.make(Key{Name: fmt.Sprint(i), Tenant: "shop"}, noon))
	}
	other := d.make(Key{Name: "web"}, noon)
	d.must(d.DeleteTenant("shop", noon.Add(time.Minute)))
	if d.Tenant("shop") != nil || d.state(ids[0], noon) != Revoked || d.state(other, noon) != Live {
		t.Error("a deleted tenant's keys are live, or another's are not")
	}
	if c, err := d.DeleteTenant("shop", noon); err != nil || !c.Empty() {
		t.Error(c, err)
	}
	_, err := d.CreateTenant("shop", Limits{}, noon)
	wantCode(t, err, job.Conflict)
	_, err = d.SetLimits("shop", Limits{}, noon)
	wantCode(t, err, job.Conflict)
	_, err = d.CreateKey(Key{Name: "web", Tenant: "shop", Scopes: Read}, noon)
	wantCode(t, err, job.Conflict)
	for more, rounds := true, 0; more; rounds++ {
		var c Change
		c, more = d.ForgetTenant("shop")
		if d.must(c, nil); more != (rounds == 0) {
			t.Fatal("round", rounds, more)
		}
	}
	d.must(d.CreateTenant("shop", Limits{}, noon))
	if _, left := d.Key(ids[0]); left || len(d.Keys()) != 1 {
		t.Error("a new tenant has the keys of an old one")
	}
	if c, more := d.ForgetTenant("shop"); more || !c.Empty() {
		t.Error("a tenant that exists is forgotten")
	}
}

func TestChangesOfTenantsAreRefused(t *testing.T) {
	t.Parallel()
	d := newTestDirectory(t)
	_, err := d.DeleteTenant(DefaultTenant, noon)
	wantCode(t, err, job.Forbidden)
	_, err = d.DeleteTenant("none", noon)
	wantCode(t, err, job.NotFound)
	_, err = d.CreateTenant(DefaultTenant, Limits{}, noon)
	wantCode(t, err, job.Conflict)
	_, err = d.CreateTenant("A", Limits{}, noon)
	wantCode(t, err, job.Invalid)
	_, err = d.CreateTenant("a", Limits{Running: -1}, noon)
	wantCode(t, err, job.Invalid)
	d.must(d.SetLimits(DefaultTenant, Limits{Running: 3}, noon))
	if c, err := d.SetLimits(DefaultTenant, Limits{Running: 3}, noon); err != nil || !c.Empty() || d.Tenant(DefaultTenant).Limits.Running != 3 {
		t.Error(c, err)
	}
	if list := d.Tenants(); len(list) != 1 || list[0].ID != DefaultTenant {
		t.Error(list)
	}
}
