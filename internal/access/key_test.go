package access

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// refused reports whether an error has a code and a field.
func refused(err error, code job.Code, field string) bool {
	var e *job.Error
	return errors.As(err, &e) && e.Code == code && e.Field == field
}

// A key's text gives its id and its secret back. Any other spelling of it is no key.
func TestKeyTextHasOneSpelling(t *testing.T) {
	t.Parallel()
	id, secret := NewKeyID(), NewSecret()
	text := KeyText(id, secret)
	gotID, gotSecret, ok := ParseKeyText(text)
	if !ok || gotID != id || gotSecret != secret {
		t.Fatalf("%s gives %s, %v", text, gotID, ok)
	}
	last := text[len(text)-1]
	for _, wrong := range []string{
		"", "mw_", text[1:], text + "A", text[:len(text)-1], text + "=", " " + text, strings.ToUpper(text), strings.Replace(text, "mw_", "wt_", 1),
		text[:3] + "A" + text[4:], text[:3] + "1" + text[4:], text[:15] + "-" + text[16:],
		text[:20] + "\n" + text[21:], text[:20] + "+" + text[21:], text[:3] + "é" + text[5:],
		text[:len(text)-1] + string(base64Successor(last)),
	} {
		if _, _, ok := ParseKeyText(wrong); ok {
			t.Errorf("%q is taken for a key", wrong)
		}
	}
}

// base64Successor returns a digit whose unused last bits differ: the same bytes for a lax decoder.
func base64Successor(digit byte) byte {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return digits[strings.IndexByte(digits, digit)+1]
}

func TestKeyMatchesItsSecretOnly(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	k := Key{Hash: secret.Hash()}
	if !k.Matches(secret) || k.Matches(NewSecret()) || (&Key{}).Matches(Secret{}) {
		t.Error("a key matches a wrong secret, or not its own")
	}
}

func TestStateOfKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key  Key
		want KeyState
	}{
		{Key{}, Live},
		{Key{Expires: noon.Add(time.Millisecond)}, Live},
		{Key{Expires: noon}, Expired},
		{Key{Revoked: noon}, Revoked},
		{Key{Revoked: noon.Add(time.Hour)}, Revoked}, // by another process, whose clock is ahead
		{Key{Revoked: noon, Expires: noon}, Revoked},
	} {
		if got := tt.key.State(noon); got != tt.want {
			t.Errorf("%+v is %s, want %s", tt.key, got, tt.want)
		}
	}
}

func TestScopesInclude(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		have, need Scopes
		want       bool
	}{
		{0, 0, true}, {0, ReadMeta, false}, {Submit, Submit, true}, {Submit, Submit | Read, false},
		{Read, ReadMeta, true}, {ReadMeta, Read, false}, {Read, Read | ReadMeta, true},
		{Admin, AllScopes, true}, {TenantAdmin, Read, false}, {AllScopes &^ Admin, Admin, false}, {Operate, Cancel, false},
	} {
		if got := tt.have.Allow(tt.need); got != tt.want {
			t.Errorf("%q allows %q: %v", tt.have, tt.need, got)
		}
	}
}

func TestParseScopes(t *testing.T) {
	t.Parallel()
	s, work, err := ParseScopes([]string{"work:ocr", "read", "submit", "work:chat", "read"})
	if err != nil || s != Submit|Read|Work || !reflect.DeepEqual(work, []string{"chat", "ocr"}) {
		t.Error(s, work, err)
	}
	for _, wrong := range []string{"", "Read", "reads", "work", "work:", "work:*x", "work:a b", "*"} {
		_, _, err := ParseScopes([]string{"read", wrong})
		if job.CodeOf(err) != job.Invalid {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if _, _, err := ParseScopes([]string{"write"}); !strings.Contains(err.Error(), "submit, read, read-meta, cancel, operate, work:QUEUE, webhooks, tenant-admin, admin") {
		t.Error("the error does not list the scopes:", err)
	}
}

// Every role is a bundle of known scopes, from weak to strong.
func TestRoles(t *testing.T) {
	t.Parallel()
	for _, name := range RoleNames() {
		scopes, err := RoleScopes(name)
		if err != nil {
			t.Fatal(err)
		}
		if s, _, err := ParseScopes(scopes); err != nil || s == 0 {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if _, err := RoleScopes("root"); job.CodeOf(err) != job.Invalid || !strings.Contains(err.Error(), "viewer") {
		t.Error(err)
	}
}

func TestCheckRefusesKey(t *testing.T) {
	t.Parallel()
	good := Key{Tenant: "shop", Name: "web", Scopes: Submit | Read}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(k *Key){
		"/tenant":      func(k *Key) { k.Tenant = "~" },
		"/name":        func(k *Key) { k.Name = "a b" },
		"/scopes":      func(k *Key) { k.Scopes = 0 },
		"/act_as":      func(k *Key) { k.Scopes, k.Tenant, k.ActAs = Admin, "", true },
		"/all_tenants": func(k *Key) { k.AllTenants = true },
		"/queues":      func(k *Key) { k.Queues = []string{"A"} },
	} {
		k := good
		change(&k)
		if err := k.Check(); !refused(err, job.Invalid, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, k := range []Key{
		{Name: "w", Scopes: Work},
		{Name: "w", Scopes: Read, Work: []string{"*"}},
		{Name: "w", Scopes: Admin, Tenant: "shop"},
		{Name: "w", Scopes: Read, Queues: []string{"chat"}},
		{Name: "w", Scopes: Submit, Queues: make([]string, MaxKeyQueues+1)},
		{Name: "w", Scopes: 1 << 15},
		{Name: strings.Repeat("a", MaxKeyName+1), Scopes: Read},
	} {
		if err := k.Check(); job.CodeOf(err) != job.Invalid {
			t.Errorf("%+v: %v", k, err)
		}
	}
}

func TestTenantAdministratorGivesNoMoreThanItHas(t *testing.T) {
	t.Parallel()
	own := Key{Tenant: "shop", Scopes: TenantAdmin | Submit | Read | Work, Work: []string{"ocr"}, Queues: []string{"chat", "ocr"}}
	for _, tt := range []struct {
		made Key
		may  bool
	}{
		{Key{Tenant: "shop", Scopes: Read}, true},
		{Key{Tenant: "shop", Scopes: ReadMeta | TenantAdmin}, true},
		{Key{Tenant: "shop", Scopes: Submit, Queues: []string{"ocr"}}, true},
		{Key{Tenant: "shop", Scopes: Submit}, false},
		{Key{Tenant: "shop", Scopes: Submit, Queues: []string{"ocr", "other"}}, false},
		{Key{Tenant: "shop", Scopes: Work, Work: []string{"ocr"}}, true},
		{Key{Tenant: "shop", Scopes: Work, Work: []string{"chat"}}, false},
		{Key{Tenant: "shop", Scopes: Work, Work: []string{AnyQueue}}, false},
		{Key{Tenant: "shop", Scopes: Work, Work: []string{"ocr"}, AllTenants: true}, false},
		{Key{Tenant: "shop", Scopes: Cancel}, false},
		{Key{Tenant: "shop", Scopes: Admin}, false},
		{Key{Tenant: "other", Scopes: Read}, false},
		{Key{Scopes: Read}, false},
	} {
		if err := own.MayGive(&tt.made); (err == nil) != tt.may || err != nil && job.CodeOf(err) != job.Forbidden {
			t.Errorf("%+v: %v", tt.made, err)
		}
	}
	admin := Key{Scopes: Admin}
	if err := admin.MayGive(&Key{Tenant: "other", Scopes: Admin, AllTenants: true}); err != nil {
		t.Error(err)
	}
}
