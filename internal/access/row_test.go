package access

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A stored key is the same when it is read, and its row does not have the secret.
func TestKeyIsStored(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	k := &Key{
		ID: NewKeyID(), Tenant: "shop", Name: "web", Hash: secret.Hash(), Scopes: Submit | ReadMeta | Work, Work: []string{"chat", "ocr"}, Queues: []string{"chat"},
		ActAs: true, AllTenants: true, Created: noon, Expires: noon.Add(time.Hour), Revoked: noon.Add(time.Minute), Replaces: NewKeyID(),
	}
	body := EncodeKey(k)
	got, err := DecodeKey(body)
	if err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("%s\n%+v, %v", body, got, err)
	}
	if text := KeyText(k.ID, secret); strings.Contains(string(body), text[16:]) {
		t.Error("the row has the secret")
	}
	short := &Key{ID: NewKeyID(), Name: "web", Scopes: Admin, Created: noon}
	if got, err := DecodeKey(EncodeKey(short)); err != nil || !reflect.DeepEqual(got, short) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A row that this version does not understand is not a key with fewer restrictions.
func TestUnknownRowIsRefused(t *testing.T) {
	t.Parallel()
	body := string(EncodeKey(&Key{ID: NewKeyID(), Name: "web", Scopes: Read, Created: noon}))
	for _, wrong := range []string{
		"", "null", "{}", body + body, body[:len(body)-1],
		strings.Replace(body, `{`, `{"only_mondays":true,`, 1),
		strings.Replace(body, `"read"`, `"read","fly"`, 1),
		strings.Replace(body, `"sha256":"`, `"sha256":"00`, 1),
		strings.Replace(body, `"sha256":"`, `"sha256":"x`, 1),
	} {
		if k, err := DecodeKey([]byte(wrong)); err == nil {
			t.Errorf("%q is the key %+v", wrong, k)
		}
	}
	for _, wrong := range []string{"", `{"id":"~"}`, `{"id":"shop","limits":{"fun":1}}`, `{"id":"shop","limits":{"waiting":-1}}`} {
		if got, err := DecodeTenant([]byte(wrong)); err == nil {
			t.Errorf("%q is the tenant %+v", wrong, got)
		}
	}
}

func TestTenantIsStored(t *testing.T) {
	t.Parallel()
	for _, tenant := range []*Tenant{
		{Created: noon},
		{ID: "shop", Created: noon, Deleted: noon.Add(time.Hour), Limits: Limits{SubmitsPerS: 0.5, Burst: 1, Waiting: 2, Running: 3, Bytes: 1 << 40, Streams: 5, Uploads: 6}},
	} {
		if got, err := DecodeTenant(EncodeTenant(tenant)); err != nil || !reflect.DeepEqual(got, tenant) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestNamesOfTenants(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"default", "a", "0", "a.b_c-d", strings.Repeat("x", 63)} {
		id, err := ParseTenant(name)
		if err != nil || TenantName(id) != name {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
	for _, name := range []string{"", "~", ".a", "-a", "A", "a b", "a/b", "ä", strings.Repeat("x", 64), ReservedTenant} {
		if id, err := ParseTenant(name); !refused(err, job.Invalid, "/tenant") {
			t.Errorf("%q is the tenant %q, %v", name, id, err)
		}
	}
	if TenantID("default") != "" || TenantName("") != "default" || ValidTenant("default") {
		t.Error("the default tenant has two ids")
	}
}

func TestLimitsOfTenantAreChecked(t *testing.T) {
	t.Parallel()
	if err := (Limits{SubmitsPerS: 0.1, Bytes: 1 << 50}).Check(); err != nil {
		t.Error(err)
	}
	for field, l := range map[string]Limits{
		"/limits/submits_per_s": {SubmitsPerS: math.NaN()}, "/limits/burst": {Burst: -1}, "/limits/waiting": {Waiting: -1},
		"/limits/running": {Running: -1}, "/limits/bytes": {Bytes: -1}, "/limits/streams": {Streams: -1}, "/limits/uploads": {Uploads: -1},
	} {
		if err := l.Check(); !refused(err, job.Invalid, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
