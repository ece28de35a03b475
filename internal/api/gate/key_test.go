package gate

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// fakeKeys are keys that a test changes.
type fakeKeys struct {
	mu      sync.Mutex
	on      bool
	keys    map[string]*access.Key
	tenants map[string]*access.Tenant
	finds   int
}

func newFakeKeys() *fakeKeys {
	return &fakeKeys{on: true, keys: map[string]*access.Key{}, tenants: map[string]*access.Tenant{"": {}, "shop": {ID: "shop"}}}
}

func (f *fakeKeys) On() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.on }

func (f *fakeKeys) Find(id string) (*access.Key, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finds++
	k, ok := f.keys[id]
	return k, ok
}

func (f *fakeKeys) Tenant(id string) *access.Tenant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tenants[id]
}

func (f *fakeKeys) Now() time.Time { return time.Now() }

// add adds a key and returns its text.
func (f *fakeKeys) add(k access.Key) (id, text string) {
	secret := access.NewSecret()
	k.ID, k.Hash = access.NewKeyID(), secret.Hash()
	f.set(k)
	return k.ID, access.KeyText(k.ID, secret)
}

func (f *fakeKeys) set(k access.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[k.ID] = &k
}

// change changes a key, as another process would.
func (f *fakeKeys) change(id string, change func(*access.Key)) {
	k, _ := f.Find(id)
	changed := *k
	change(&changed)
	f.set(changed)
}

// keyed is a gate with keys in front of a few routes. They answer with the caller's owners.
func keyed(f *fakeKeys) http.Handler { return keyedGate(&Gate{Keys: f}) }

func keyedGate(g *Gate) http.Handler {
	mux := NewMux()
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := CallerFrom(r)
		view := c.View().User
		if c.View().IsWholeTenant() {
			view = "*"
		}
		api.WriteJSON(w, 200, fmt.Sprintf("%s/%s reads %s/%s", c.Owner().Tenant, c.Owner().User, c.View().Tenant, view))
	})
	mux.Handle("GET /open", Anyone(), who)
	mux.Handle("GET /any", AnyCaller(), who)
	mux.Handle("GET /read", Scope(access.ReadMeta), who)
	mux.Handle("POST /submit", Scope(access.Submit), who)
	mux.Handle("POST /both", Scope(access.Submit|access.Read), who)
	mux.Handle("GET /either", AnyScope(access.Read|access.Cancel), who)
	mux.Handle("GET /admin", Scope(access.Admin).OnMachine(), who)
	mux.Handle("GET /user", Scope(access.Read).UserToken(), who)
	return g.Handler(mux)
}

func bearer(key string, more ...string) []string {
	return append([]string{"Authorization", "Bearer " + key}, more...)
}

func codeIn(w *httptest.ResponseRecorder) string {
	_, rest, _ := strings.Cut(w.Body.String(), `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

// A route without a need cannot be registered, so a server with one does not start.
func TestRouteWithoutNeedIsRefused(t *testing.T) {
	t.Parallel()
	defer func() {
		if p, _ := recover().(string); !strings.Contains(p, "GET /forgotten") {
			t.Errorf("it was registered: %q", p)
		}
	}()
	NewMux().Handle("GET /forgotten", Need{}, http.NotFoundHandler())
}

// A handler that asks for a caller behind no gate answers 500.
func TestHandlerAroundGateFails(t *testing.T) {
	t.Parallel()
	h := api.Wrap(nil, api.WriteProblem, func(http.ResponseWriter, *http.Request) error {
		t.Error("it has a caller: ", CallerFrom(httptest.NewRequest("GET", "/", nil)))
		return nil
	})
	if w := requestTo(h, "GET", "/"); w.Code != 500 {
		t.Error(w.Code)
	}
}

func TestKeyOpensItsScopes(t *testing.T) {
	t.Parallel()
	f := newFakeKeys()
	h := keyed(f)
	_, reads := f.add(access.Key{Tenant: "shop", Scopes: access.Read})
	_, meta := f.add(access.Key{Tenant: "shop", Scopes: access.ReadMeta})
	_, submits := f.add(access.Key{Tenant: "shop", Scopes: access.Submit, ActAs: true})
	_, admin := f.add(access.Key{Scopes: access.Admin})
	for _, tt := range []struct {
		rule, method, path string
		header             []string
		status             int
		want               string // the body, or the code of the error
	}{
		{"a probe needs no key", "GET", "/open", nil, 200, ""},
		{"any other call does", "GET", "/any", nil, 401, "key_required"},
		{"X-User-ID is no key", "GET", "/read", []string{"X-User-ID", "ann"}, 401, "key_required"},
		{"nor is another credential", "GET", "/read", []string{"Authorization", "Basic YTpi"}, 401, "key_required"},
		{"an unknown path tells nothing", "GET", "/nothing", nil, 404, "not_found"},
		{"a key reads its tenant", "GET", "/read", bearer(reads), 200, `"shop/local reads shop/*"`},
		{"the scheme has any case", "GET", "/read", []string{"Authorization", "bearer  " + reads}, 200, ""},
		{"read includes read-meta", "GET", "/read", bearer(meta), 200, ""},
		{"but read-meta not read", "GET", "/either", bearer(meta), 403, "scope_missing"},
		{"one of several scopes", "GET", "/either", bearer(reads), 200, ""},
		{"all of several scopes", "POST", "/both", bearer(submits), 403, "scope_missing"},
		{"a missing scope", "POST", "/submit", bearer(reads), 403, "scope_missing"},
		{"a key that acts as users", "POST", "/submit", bearer(submits, "X-User-ID", "ann"), 200, `"shop/ann reads shop/ann"`},
		{"and without one is local", "POST", "/submit", bearer(submits), 200, `"shop/local reads shop/local"`},
		{"but with a malformed one nobody", "POST", "/submit", bearer(submits, "X-User-ID", "\x01"), 400, "invalid_request"},
		{"another key names no user", "GET", "/read", bearer(reads, "X-User-ID", "ann"), 403, "forbidden"},
		{"nor another tenant", "GET", "/read", bearer(reads, "X-Tenant", "default"), 403, "forbidden"},
		{"its own tenant it may name", "GET", "/read", bearer(reads, "X-Tenant", "shop"), 200, ""},
		{"an admin has every scope", "POST", "/both", bearer(admin), 200, `"/local reads /*"`},
		{"an admin names a tenant", "GET", "/read", bearer(admin, "X-Tenant", "shop"), 200, `"shop/local reads shop/*"`},
		{"which must exist", "GET", "/read", bearer(admin, "X-Tenant", "nowhere"), 404, "not_found"},
		{"and be a name", "GET", "/read", bearer(admin, "X-Tenant", "~"), 400, "invalid_request"},
		{"two tenants are none", "GET", "/read", bearer(admin, "X-Tenant", "shop", "X-Tenant", "default"), 400, "invalid_request"},
		{"an admin's page", "GET", "/admin", bearer(admin), 200, ""},
		{"is not for others", "GET", "/admin", bearer(reads), 403, "scope_missing"},
		{"a wrong key", "GET", "/open", bearer(reads[:len(reads)-1] + "_"), 401, "bad_key"},
		{"half a key", "GET", "/any", bearer("mw_"), 401, "bad_key"},
		{"a key in the URL", "GET", "/read?key=" + reads, bearer(reads), 400, "key_in_url"},
		{"a key in the path", "GET", "/" + reads, nil, 400, "key_in_url"},
		{"a key as a token", "GET", "/read?token=" + reads, nil, 400, "key_in_url"},
		{"what only begins like a key may be in a URL", "GET", "/read?key=mw_abc", bearer(reads), 200, ""},
		{"a key and a token", "GET", "/read?token=wt_x", bearer(reads), 400, "invalid_request"},
		{"two keys", "GET", "/read", bearer(reads, "Authorization", "Bearer "+admin), 400, "invalid_request"},
	} {
		w := requestTo(h, tt.method, tt.path, tt.header...)
		if w.Code != tt.status || tt.want != "" && tt.want != codeIn(w) && tt.want != w.Body.String() {
			t.Errorf("%s: %d %s", tt.rule, w.Code, w.Body)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); (w.Code == 401) != strings.HasPrefix(challenge, "Bearer") && codeIn(w) != "scope_missing" {
			t.Errorf("%s: %d with the challenge %q", tt.rule, w.Code, challenge)
		}
		if strings.Contains(w.Body.String(), reads[16:]) {
			t.Errorf("%s: the answer has the key: %s", tt.rule, w.Body)
		}
	}
}

// The error of a missing scope names it.
func TestMissingScopeIsNamed(t *testing.T) {
	t.Parallel()
	f := newFakeKeys()
	_, key := f.add(access.Key{Scopes: access.Read})
	w := requestTo(keyed(f), "POST", "/submit", bearer(key)...)
	if !strings.Contains(w.Body.String(), "the scope submit") || w.Header().Get("WWW-Authenticate") != `Bearer error="insufficient_scope"` {
		t.Error(w.Header(), w.Body)
	}
}

// A revoked or expired key is refused. Only who has the secret learns why.
func TestEndedKeyIsRefused(t *testing.T) {
	t.Parallel()
	f := newFakeKeys()
	h := keyed(f)
	now := time.Now()
	_, revoked := f.add(access.Key{Scopes: access.Read, Revoked: now})
	_, expired := f.add(access.Key{Scopes: access.Read, Expires: now})
	for key, says := range map[string]string{
		revoked: "was revoked", expired: "has expired",
		revoked[:20] + strings.Repeat("A", len(revoked)-20): "not a key of this server",
	} {
		if w := requestTo(h, "GET", "/read", bearer(key)...); w.Code != 401 || codeIn(w) != "bad_key" || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// Without keys nothing is asked for, and a key that is sent must be one all the same.
func TestServerWithoutKeys(t *testing.T) {
	t.Parallel()
	f := newFakeKeys()
	f.on = false
	_, key := f.add(access.Key{Tenant: "shop", Scopes: access.Read})
	for _, g := range []*Gate{{}, {Keys: f}} {
		h := keyedGate(g)
		for _, path := range []string{"/any", "/read", "/admin"} {
			if w := requestTo(h, "GET", path, "X-User-ID", "ann"); w.Code != 200 || w.Body.String() != `"/ann reads /ann"` {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		if w := requestTo(h, "GET", "/read", bearer("mw_x")...); w.Code != 401 {
			t.Error("a wrong key is let in as if it were none")
		}
	}
	if w := requestTo(keyed(f), "GET", "/read", bearer(key)...); w.Body.String() != `"shop/local reads shop/*"` {
		t.Error("a key of a server whose keys are just being turned on:", w.Body)
	}
}

// What a program around the server has let in needs no key.
func TestVouchedRequestNeedsNoKey(t *testing.T) {
	t.Parallel()
	h := keyed(newFakeKeys())
	for want, vouch := range map[string]func(*http.Request) *http.Request{
		`"/ann reads /ann"`: func(r *http.Request) *http.Request { return WithUser(r, "ann") },
		`"/bob reads /bob"`: func(r *http.Request) *http.Request { r.Header.Set("X-User-ID", "bob"); return Vouch(r) },
	} {
		r := httptest.NewRequest("POST", "http://127.0.0.1:8080/both", nil)
		r.RemoteAddr = "127.0.0.1:5"
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, vouch(r)); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%d %s, want %s", w.Code, w.Body, want)
		}
	}
}

// An address that sends wrong keys is told to wait. A right key from there is let in, and other
// addresses notice nothing.
func TestWrongKeysAreSlowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKeys()
		h := keyed(f)
		_, key := f.add(access.Key{Scopes: access.Read})
		from := func(addr, key string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", "http://127.0.0.1:8080/read", nil)
			r.RemoteAddr = addr
			r.Header.Set("Authorization", "Bearer "+key)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		for i := range maxBadKeys {
			if w := from(fmt.Sprintf("[2001:db8::%x]:1", i+1), "mw_x"); w.Code != 401 {
				t.Fatal(i, w.Code)
			}
		}
		time.Sleep(attemptWindow / 4)
		w := from("[2001:db8::99]:1", "mw_x")
		if w.Code != 429 || codeIn(w) != "too_many_bad_keys" || w.Header().Get("Retry-After") != "45" || w.Header().Get("Connection") != "close" {
			t.Error(w.Code, w.Header(), w.Body)
		}
		if w := from("[2001:db8::99]:1", key); w.Code != 200 {
			t.Error("a right key:", w.Code)
		}
		if w := from("[2001:db8:0:1::1]:1", "mw_x"); w.Code != 401 {
			t.Error("another network:", w.Code)
		}
		time.Sleep(attemptWindow)
		if w := from("[2001:db8::99]:1", "mw_x"); w.Code != 401 {
			t.Error("a minute later:", w.Code)
		}
	})
}

// However many addresses guess, the memory for them is bounded.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	var a attempts
	for i := range maxAttemptAddrs + 100 {
		_ = a.refuse(fmt.Sprint(i))
	}
	if len(a.clients) != maxAttemptAddrs {
		t.Error(len(a.clients))
	}
}

// A user's token belongs to its key: it ends with it, and it submits where the key does.
func TestUsersTokenEndsWithItsKey(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*access.Key){
		"revoked": func(k *access.Key) { k.Revoked = time.Now() },
		"expired": func(k *access.Key) { k.Expires = time.Now() },
	} {
		f := newFakeKeys()
		id, _ := f.add(access.Key{Tenant: "shop", Scopes: UserScopes, ActAs: true, Queues: []string{"ocr"}})
		tokens, err := NewTokens(make([]byte, TokenKeySize))
		if err != nil {
			t.Fatal(err)
		}
		h := keyedGate(&Gate{Keys: f, Tokens: tokens})
		grant := Grant{Owner: job.Owner{Tenant: "shop", User: "ann"}, Expires: time.Now().Add(time.Hour), Renewable: time.Now().Add(time.Hour), Key: id}
		token := seal(tokens, grant)
		if w := requestTo(h, "GET", "/user", bearer(token)...); w.Body.String() != `"shop/ann reads shop/ann"` {
			t.Fatal(w.Code, w.Body)
		}
		c := &Caller{guard: &guard{Gate: &Gate{Keys: f}}, grant: &grant}
		if c.CheckQueue("ocr") != nil || job.CodeOf(c.CheckQueue("chat")) != job.Forbidden {
			t.Error("the token does not submit where its key does")
		}
		f.change(id, end)
		if w := requestTo(h, "GET", "/user", bearer(token)...); w.Code != 401 || codeIn(w) != "bad_token" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// The tokens of a deleted tenant end with it.
func TestTokenEndsWithItsTenant(t *testing.T) {
	t.Parallel()
	f := newFakeKeys()
	tokens := tokensAt(noon, 1)
	g := testGrant()
	g.Owner.Tenant = "gone"
	mux := NewMux()
	mux.Handle("GET /v1/jobs/{id}", Scope(access.Read).WatchToken(0, "id"), http.NotFoundHandler())
	w := requestTo((&Gate{Keys: f, Tokens: tokens}).Handler(mux), "GET", "/v1/jobs/"+g.Job.String()+"?token="+seal(tokens, g))
	if w.Code != 401 {
		t.Error(w.Code, w.Body)
	}
}

// An open stream is cut once its caller's key has ended, and no other is.
func TestStreamIsCutWhenKeyEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKeys()
		g := &guard{Gate: &Gate{Keys: f}}
		var ids [4]string
		var cut [4]int
		var release [4]func()
		for i := range ids {
			ids[i], _ = f.add(access.Key{Scopes: access.Read})
			key, _ := f.Find(ids[i])
			c := &Caller{guard: g, key: key}
			if i == 1 {
				c = &Caller{guard: g, owner: job.Owner{User: "ann"}, grant: &Grant{Key: ids[1], Renewable: noon, Expires: noon}}
			}
			release[i] = c.OnEnd(func() { cut[i]++ })
		}
		f.change(ids[0], func(k *access.Key) { k.Revoked = time.Now() })
		f.change(ids[1], func(k *access.Key) { k.Expires = time.Now() })
		f.change(ids[2], func(k *access.Key) { k.Revoked = time.Now() })
		release[2]()
		time.Sleep(2 * sweepInterval)
		synctest.Wait()
		if cut != [4]int{1, 1, 0, 0} {
			t.Error(cut)
		}
		for _, end := range release {
			end()
		}
		if g.streams.timer != nil || len(g.streams.open) != 0 {
			t.Error("streams are left")
		}
	})
}

// A stream without a key is cut when the server gets its first one, but not that of the program
// around the server.
func TestStreamWithoutKeyIsCutWhenKeysTurnOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKeys()
		f.on = false
		g := &guard{Gate: &Gate{Keys: f}}
		ctx, cancel := (&Caller{guard: g}).Context(t.Context())
		defer cancel()
		vouched, cancelVouched := (&Caller{guard: g, vouched: true}).Context(t.Context())
		defer cancelVouched()
		f.mu.Lock()
		f.on = true
		f.mu.Unlock()
		time.Sleep(2 * sweepInterval)
		synctest.Wait()
		if ctx.Err() == nil || vouched.Err() != nil {
			t.Error(ctx.Err(), vouched.Err())
		}
	})
}

// The check of a key is a small part of what a request costs.
func BenchmarkGate(b *testing.B) {
	f := newFakeKeys()
	_, key := f.add(access.Key{Scopes: access.Read | access.Submit})
	for name, g := range map[string]struct {
		gate   *Gate
		header []string
	}{
		"without keys": {&Gate{}, nil},
		"with a key":   {&Gate{Keys: f}, bearer(key)},
	} {
		mux := NewMux()
		mux.Handle("POST /v1/jobs", Scope(access.Submit), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		h := g.gate.Handler(mux)
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("POST", "http://127.0.0.1:8080/v1/jobs", nil)
			r.RemoteAddr = "127.0.0.1:5"
			for i := 0; i < len(g.header); i += 2 {
				r.Header.Set(g.header[i], g.header[i+1])
			}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
