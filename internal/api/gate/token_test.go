package gate

import (
	"bytes"
	"crypto/cipher"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

var noon = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)

// tokensAt returns Tokens with a key of equal bytes and a fixed clock.
func tokensAt(now time.Time, key byte) *Tokens {
	t, err := NewTokens(bytes.Repeat([]byte{key}, TokenKeySize))
	if err != nil {
		panic(err)
	}
	t.now = func() time.Time { return now }
	return t
}

func testGrant() Grant {
	return Grant{Owner: job.Owner{User: "ann"}, Job: job.ID{6: 0x70, 8: 0x80, 15: 1}, Expires: noon.Add(time.Hour)}
}

func userGrant() Grant {
	return Grant{Owner: job.Owner{User: "ann"}, Expires: noon.Add(time.Hour), Renewable: noon.Add(2 * time.Hour), Queues: "a,b"}
}

// withoutKeyID returns a token as versions wrote it whose tokens had no id of their key.
func withoutKeyID(token string) string {
	head, digits, _ := strings.Cut(token, ".")
	return head[:3] + digits
}

func seal(t *Tokens, g Grant) string { return string(t.Seal(nil, g)) }

// A token can be opened with the same key until it expires.
func TestTokenRoundTrips(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(noon, 1)
	rapid.Check(t, func(t *rapid.T) {
		g := Grant{
			Owner:   job.Owner{Tenant: rapid.StringN(0, -1, 255).Draw(t, "tenant"), User: rapid.StringN(0, -1, 128).Draw(t, "user")},
			Rights:  Rights(rapid.IntRange(0, 1).Draw(t, "rights")),
			Expires: time.Unix(noon.Unix()+rapid.Int64Range(1, 1<<33).Draw(t, "life"), 0),
		}
		copy(g.Job[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "job"))
		token := seal(tokens, g)
		if rapid.Bool().Draw(t, "user") {
			g = Grant{Owner: g.Owner, Expires: g.Expires, Renewable: g.Expires.Add(time.Hour), Queues: rapid.StringN(0, 20, 100).Draw(t, "queues")}
			token = seal(tokens, g)
		}
		got, err := tokens.Open(token)
		if err != nil || got.Renewable.Unix() != g.Renewable.Unix() || got.Queues != g.Queues || got.IsUser() != g.IsUser() || got.Owner != g.Owner || got.Job != g.Job || got.Rights != g.Rights || !got.Expires.Equal(g.Expires) {
			t.Fatalf("%+v, %v", got, err)
		}
		if again := seal(tokens, got); again != token {
			t.Fatalf("sealed again it is %s, not %s", again, token)
		}
		if _, err := tokensAt(noon, 2).Open(token); job.CodeOf(err) != job.BadToken {
			t.Fatalf("with another key: %v", err)
		}
		if _, err := tokensAt(g.Expires, 1).Open(token); job.CodeOf(err) != job.BadToken {
			t.Fatalf("when it has expired: %v", err)
		}
	})
}

// A token with one character added, removed or changed is refused, and the error does not
// repeat it.
func TestAlteredTokenIsRefused(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(noon, 1)
	token := seal(tokens, testGrant())
	refused := func(text string) {
		t.Helper()
		if g, err := tokens.Open(text); job.CodeOf(err) != job.BadToken || g != (Grant{}) {
			t.Errorf("%q: %+v, %v", text, g, err)
		} else if len(text) > 4 && strings.Contains(err.Error(), text[3:]) {
			t.Errorf("the refusal repeats the token: %v", err)
		}
	}
	for i := range token {
		for _, c := range []byte("A_z9= \n%") {
			if token[i] != c {
				refused(token[:i] + string(c) + token[i+1:])
			}
			refused(token[:i] + string(c) + token[i:])
		}
		refused(token[:i])
	}
	for _, text := range []string{"ut_" + token[3:], "wt_" + seal(tokens, userGrant())[3:], withoutKeyID(seal(tokens, userGrant())), "wt_." + token[8:], token + "A", token + "=", token + token, "wt_" + strings.Repeat("A", 2000), strings.ToUpper(token)} {
		refused(text)
	}
}

// The bytes of a token do not contain its grant.
func TestTokenHidesGrant(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(noon, 1)
	g := testGrant()
	g.Owner.User = strings.Repeat("ann", 40)
	_, digits, _ := strings.Cut(seal(tokens, g), ".")
	sealed, ok := decodeToken(digits)
	if !ok || bytes.Contains(sealed, []byte("ann")) || bytes.Contains(sealed, g.Job[:]) {
		t.Errorf("%q", sealed)
	}
}

// crypt gives the same bytes as AES-CTR for any tag and length.
func TestCryptMatchesCTR(t *testing.T) {
	t.Parallel()
	s := (*tokensAt(noon, 1).keys.Load())[0].watch.Get().(*sealer)
	for _, tag := range [][]byte{bytes.Repeat([]byte{7}, tagSize), bytes.Repeat([]byte{255}, tagSize)} {
		for n := range 100 {
			got, want := make([]byte, n), make([]byte, n)
			s.crypt(tag, got)
			cipher.NewCTR(s.block, tag).XORKeyStream(want, want)
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes: %x, want %x", n, got, want)
			}
		}
	}
}

func FuzzToken(f *testing.F) {
	tokens := tokensAt(noon, 1)
	f.Add(seal(tokens, testGrant()))
	f.Add(seal(tokens, Grant{Expires: noon}))
	f.Add(seal(tokens, userGrant()))
	f.Add(withoutKeyID(seal(tokens, testGrant())))
	f.Add("wt_")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := tokens.Open(text)
		if err == nil && seal(tokens, g) != text && withoutKeyID(seal(tokens, g)) != text {
			t.Errorf("%q is read as %+v, whose token is another", text, g)
		}
		if err != nil && job.CodeOf(err) != job.BadToken {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// newTokenHandler returns a gate with calls that respond with the owner and the URL.
func newTokenHandler(origins ...string) http.Handler {
	s := &Gate{
		Listen: []string{"127.0.0.1:8080"}, Tokens: tokensAt(noon, 1), TokenTTL: time.Hour,
		AllowedOrigins: origins,
	}
	mux := NewMux()
	write := func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.RequestURI+r.URL.String()+api.Header(r, "Authorization"), "wt_") {
			panic("the token is still there")
		}
		api.WriteJSON(w, 200, CallerFrom(r).Owner().User+" "+r.RequestURI)
	}
	for _, pattern := range []string{
		"GET /v1/jobs/{id}", "GET /v1/jobs/{id}/output", "GET /v1/jobs/{id}/events", "GET /v1/jobs/{id}/result",
	} {
		mux.Handle(pattern, AnyCaller().WatchToken(0, "id"), http.HandlerFunc(write))
	}
	mux.Handle("GET /v1/watch", AnyCaller().WatchToken(0, ""), http.HandlerFunc(write))
	mux.Handle("POST /v1/jobs/{id}/cancel", AnyCaller().WatchToken(MayCancel, "id"), http.HandlerFunc(write))
	for _, pattern := range []string{
		"POST /v1/jobs/{id}/retry", "DELETE /v1/jobs/{id}", "GET /v1/jobs", "POST /v1/jobs", "GET /ws",
	} {
		mux.Handle(pattern, AnyCaller(), http.HandlerFunc(write))
	}
	return s.Handler(mux)
}

func requestTo(h http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:5000"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A token opens the calls of its one job, in its owner's name, and no others.
func TestTokenOpensOnlyItsJob(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(noon, 1)
	g := testGrant()
	tokenJob := g.Job.String()
	other := job.ID{6: 0x70, 8: 0x80, 15: 2}.String()
	reads := seal(tokens, g)
	g.Rights = MayCancel
	cancels := seal(tokens, g)
	g.Expires = noon
	expired := seal(tokens, g)
	for _, tt := range []struct {
		rule         string
		method, path string
		token        string
		status       int
		code         string
	}{
		{"the job", "GET", "/v1/jobs/" + tokenJob, reads, 200, ""},
		{"the job by HEAD", "HEAD", "/v1/jobs/" + tokenJob, reads, 200, ""},
		{"its output", "GET", "/v1/jobs/" + tokenJob + "/output", reads, 200, ""},
		{"its events", "GET", "/v1/jobs/" + tokenJob + "/events", reads, 200, ""},
		{"its result", "GET", "/v1/jobs/" + tokenJob + "/result", reads, 200, ""},
		{"the socket", "GET", "/v1/watch", reads, 200, ""},
		{"its cancel with the right to cancel", "POST", "/v1/jobs/" + tokenJob + "/cancel", cancels, 200, ""},
		{"its cancel without the right", "POST", "/v1/jobs/" + tokenJob + "/cancel", reads, 403, "forbidden"},
		{"a retry", "POST", "/v1/jobs/" + tokenJob + "/retry", cancels, 403, "forbidden"},
		{"a delete", "DELETE", "/v1/jobs/" + tokenJob, cancels, 403, "forbidden"},
		{"the list of jobs", "GET", "/v1/jobs", cancels, 403, "forbidden"},
		{"a submit", "POST", "/v1/jobs", cancels, 403, "forbidden"},
		{"a call of another API", "GET", "/ws", cancels, 403, "forbidden"},
		{"another job", "GET", "/v1/jobs/" + other, reads, 404, "not_found"},
		{"the cancel of another job", "POST", "/v1/jobs/" + other + "/cancel", cancels, 404, "not_found"},
		{"an invalid job id", "GET", "/v1/jobs/x/events", reads, 404, "not_found"},
		{"an unknown path", "GET", "/v1/nowhere", reads, 404, "not_found"},
		{"an expired token", "GET", "/v1/jobs/" + tokenJob, expired, 401, "bad_token"},
		{"a token of another server", "GET", "/v1/jobs/" + tokenJob, seal(tokensAt(noon, 2), testGrant()), 401, "bad_token"},
		{"an empty token", "GET", "/v1/jobs/" + tokenJob, "", 401, "bad_token"},
		{"two tokens", "GET", "/v1/jobs/" + tokenJob, reads + "&token=" + reads, 401, "bad_token"},
		{"an invalid token for a call without one", "POST", "/v1/jobs", "wt_x", 401, "bad_token"},
	} {
		w := requestTo(newTokenHandler(), tt.method, tt.path+"?after=3&token="+tt.token, "X-User-ID", "bob")
		if w.Code != tt.status || tt.code != "" && !strings.Contains(w.Body.String(), `"`+tt.code+`"`) {
			t.Errorf("%s: %d %s, want %d %s", tt.rule, w.Code, w.Body, tt.status, tt.code)
		}
		if w.Code == 200 && tt.method != "HEAD" && w.Body.String() != `"ann `+tt.path+`?after=3"` {
			t.Errorf("%s: %s", tt.rule, w.Body)
		}
		if (w.Header().Get("WWW-Authenticate") != "") != (tt.status == 401) {
			t.Errorf("%s: WWW-Authenticate is %q", tt.rule, w.Header().Get("WWW-Authenticate"))
		}
		if tt.token != "" && strings.Contains(w.Body.String(), tt.token) {
			t.Errorf("%s: the answer repeats the token: %s", tt.rule, w.Body)
		}
	}
	if w := requestTo(newTokenHandler(), "GET", "/v1/jobs/"+tokenJob, "Authorization", "bearer "+reads); w.Code != 200 || w.Body.String() != `"ann /v1/jobs/`+tokenJob+`"` {
		t.Errorf("as a header: %d %s", w.Code, w.Body)
	}
	if w := requestTo(newTokenHandler(), "GET", "/v1/jobs/"+tokenJob+"?token="+reads, "Authorization", "Bearer "+reads); w.Code != 401 {
		t.Errorf("as a header and a parameter: %d %s", w.Code, w.Body)
	}
	if w := requestTo(newTokenHandler(), "GET", "/v1/jobs", "Authorization", "Bearer something-else"); w.Code != 200 {
		t.Errorf("a header that is none: %d %s", w.Code, w.Body)
	}
}

// A page of an allowed origin may follow a job with its token and do nothing else. Other
// pages may do nothing.
func TestForeignPagesNeedAllowedOriginAndToken(t *testing.T) {
	t.Parallel()
	const app = "https://app.example"
	token := seal(tokensAt(noon, 1), testGrant())
	path := "/v1/jobs/" + testGrant().Job.String()
	for _, tt := range []struct {
		rule         string
		allowed      []string
		origin       string
		method, path string
		status       int
	}{
		{"a page of an allowed origin with a token", []string{"https://other.example", app}, app, "GET", path + "?token=" + token, 200},
		{"a page of an allowed origin without a token", []string{app}, app, "GET", path, 403},
		{"a submit without a token", []string{app}, app, "POST", "/v1/jobs", 403},
		{"an unknown path without a token", []string{app}, app, "GET", "/v1/nowhere", 403},
		{"an invalid token", []string{app}, app, "GET", path + "?token=wt_x", 401},
		{"a page of another origin", []string{app}, "https://evil.example", "GET", path + "?token=" + token, 403},
		{"another scheme", []string{app}, "http://app.example", "GET", path + "?token=" + token, 403},
		{"another port", []string{app}, app + ":444", "GET", path + "?token=" + token, 403},
		{"no allowed origins", nil, app, "GET", path + "?token=" + token, 403},
		{"all origins are allowed, with a token", []string{"*"}, "https://evil.example", "GET", path + "?token=" + token, 200},
		{"all origins are allowed, without a token", []string{"*"}, "https://evil.example", "GET", path, 403},
		{"all origins are allowed, the origin null", []string{"*"}, "null", "GET", path + "?token=" + token, 200},
		{"the origin null is not listed", []string{app}, "null", "GET", path + "?token=" + token, 403},
	} {
		w := requestTo(newTokenHandler(tt.allowed...), tt.method, tt.path, "Origin", tt.origin)
		if w.Code != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.rule, w.Code, w.Body, tt.status)
		}
		// A refusal too, so that the page can read it.
		if readable := w.Header().Get("Access-Control-Allow-Origin"); readable != tt.origin {
			t.Errorf("%s: Access-Control-Allow-Origin is %q", tt.rule, readable)
		}
		if w.Header().Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed", tt.rule)
		}
		if w.Header().Get("Vary") != "Origin" {
			t.Errorf("%s: Vary is %q", tt.rule, w.Header().Get("Vary"))
		}
	}
}

func TestPreflightListsMethodsAndHeaders(t *testing.T) {
	t.Parallel()
	path := "/v1/jobs/" + testGrant().Job.String() + "/output?token=wt_x"
	ask := []string{"Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "prefer"}
	w := requestTo(newTokenHandler("https://app.example"), "OPTIONS", path, append(ask, "Origin", "https://app.example")...)
	h := w.Header()
	if w.Code != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" ||
		!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Prefer") || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "GET") {
		t.Errorf("%d %v", w.Code, h)
	}
	// The request that follows is refused, with a reason that the page can read.
	if w := requestTo(newTokenHandler("https://app.example"), "OPTIONS", path, append(ask, "Origin", "https://evil.example")...); w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "https://evil.example" {
		t.Errorf("from a foreign origin: %d %v", w.Code, w.Header())
	}
	if w := requestTo(newTokenHandler("https://app.example"), "OPTIONS", "/v1/jobs", "Origin", "https://app.example"); w.Code != 403 {
		t.Errorf("without a requested method: %d %v", w.Code, w.Header())
	}
}

func TestWatchURLUsesPublicAddress(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(noon, 1)
	for _, tt := range []struct {
		rule string
		gate *Gate
		host string
		tail string
	}{
		{"with a public URL the Host does not count", &Gate{PublicURL: mustURL("https://jobs.example/m/")}, "127.0.0.1:8080", "https://jobs.example/m/v1/jobs/"},
		{"a loopback Host is in the URL", &Gate{}, "localhost:8080", "http://localhost:8080/v1/jobs/"},
		{"with any other Host the URL is a path", &Gate{}, "meanwhile:8080", "/v1/jobs/"},
	} {
		tt.gate.Tokens, tt.gate.TokenTTL = tokens, time.Hour
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = tt.host
		r = r.WithContext(callerContext{r.Context(), &Caller{}})
		g := testGrant()
		g.Expires = time.Time{}
		at, token, _ := strings.Cut(tt.gate.WatchURL(r, g, "/v1/jobs/", "/events"), "?token=")
		if at != tt.tail+g.Job.String()+"/events" {
			t.Errorf("%s: %s", tt.rule, at)
		}
		if got, err := tokens.Open(token); err != nil || !got.Expires.Equal(noon.Add(time.Hour)) {
			t.Errorf("%s: %+v, %v", tt.rule, got, err)
		}
	}
}

// The refusal of a page of another origin names which of the two it lacks.
func TestRefusedPageLearnsWhatIsMissing(t *testing.T) {
	t.Parallel()
	token := "?token=" + seal(tokensAt(noon, 1), testGrant())
	path := "/v1/jobs/" + testGrant().Job.String()
	const origin, needsToken = "allowed_origins of the server's configuration", "/v1/tokens"
	for _, tt := range []struct {
		rule, origin, path   string
		lacksOrigin, lacksTk bool
	}{
		{"neither", "https://evil.example", path, true, true},
		{"a token", "https://evil.example", path + token, true, false},
		{"the origin", "https://app.example", path, false, true},
	} {
		w := requestTo(newTokenHandler("https://app.example"), "GET", tt.path, "Origin", tt.origin)
		body := w.Body.String()
		if w.Code != 403 || strings.Contains(body, origin) != tt.lacksOrigin || strings.Contains(body, needsToken) != tt.lacksTk || !strings.Contains(body, tt.origin) {
			t.Errorf("with %s: %d %s", tt.rule, w.Code, body)
		}
	}
}

// A new key logs nobody out: the tokens of the old ones open until their key is dropped.
func TestKeysAreARing(t *testing.T) {
	t.Parallel()
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, TokenKeySize) }
	tokens := tokensAt(noon, 1)
	var old []string
	for _, g := range []Grant{testGrant(), userGrant()} {
		old = append(old, seal(tokens, g))
	}
	old = append(old, withoutKeyID(old[0]))
	open := func(rule string, want job.Code) {
		t.Helper()
		for _, token := range old {
			if _, err := tokens.Open(token); job.CodeOf(err) != want {
				t.Errorf("%s: %s: %v", rule, token, err)
			}
		}
	}
	open("before", "")
	if err := tokens.SetKeys(key(1), key(2)); err != nil {
		t.Fatal(err)
	}
	open("with a new key", "")
	if seal(tokens, testGrant()) == old[0] || seal(tokens, testGrant()) != seal(tokensAt(noon, 2), testGrant()) {
		t.Error("the last key does not seal")
	}
	if err := tokens.SetKeys(key(2)); err != nil {
		t.Fatal(err)
	}
	open("without the old key", job.BadToken)
	if tokens.SetKeys() == nil || tokens.SetKeys([]byte("short")) == nil {
		t.Error("it has no keys")
	}
}

// A token whose key another process has made opens once the keys are loaded. Altered tokens of
// known keys load nothing.
func TestUnknownKeyIsLoaded(t *testing.T) {
	t.Parallel()
	first, second := bytes.Repeat([]byte{1}, TokenKeySize), bytes.Repeat([]byte{2}, TokenKeySize)
	here, there := tokensAt(noon, 1), tokensAt(noon, 1)
	if err := there.SetKeys(first, second); err != nil {
		t.Fatal(err)
	}
	loads := 0
	keys := [][]byte{first}
	here.OnUnknownKey(func() {
		loads++
		if err := here.SetKeys(keys...); err != nil {
			t.Error(err)
		}
	})
	token := seal(there, userGrant())
	if _, err := here.Open(token); job.CodeOf(err) != job.BadToken || loads != 1 {
		t.Errorf("before its key is there: %v, %d loads", err, loads)
	}
	keys = [][]byte{first, second}
	if g, err := here.Open(token); err != nil || g.Owner.User != "ann" || loads != 2 {
		t.Errorf("%+v, %v, %d loads", g, err, loads)
	}
	for _, text := range []string{token, token[:len(token)-1], token[:9] + "A" + token[9:], withoutKeyID(token), "wt_x"} {
		_, _ = here.Open(text)
	}
	if loads != 2 {
		t.Errorf("tokens of known keys loaded the keys %d times", loads-2)
	}
}

// Only a peer that may name users speaks for them.
func TestWhoMaySpeakForUsers(t *testing.T) {
	t.Parallel()
	g := &Gate{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for _, tt := range []struct {
		rule, from, forwarded string
		named, want           bool
	}{
		{"this machine", "127.0.0.1:1", "", false, true},
		{"a trusted proxy", "10.1.2.3:1", "", false, true},
		{"a trusted proxy for a client", "10.1.2.3:1", "203.0.113.9", false, true},
		{"another machine", "10.2.2.3:1", "", false, false},
		{"another machine that says it is this one", "10.2.2.3:1", "127.0.0.1", false, false},
		{"no address", "@", "", false, false},
		{"a program that embeds the server", "203.0.113.9:1", "", true, true},
	} {
		r := httptest.NewRequest("POST", "/v1/tokens", nil)
		r.RemoteAddr = tt.from
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if tt.named {
			r = WithUser(r, "ann")
		}
		if got := maySpeakForUsers(g.dropUntrusted(r)); got != tt.want {
			t.Errorf("%s: %v", tt.rule, got)
		}
	}
}

// A user's token gives watch URLs, which do not outlive it.
func TestWatchURLEndsWithUsersToken(t *testing.T) {
	t.Parallel()
	s := &Gate{Listen: []string{"127.0.0.1:8080"}, Tokens: tokensAt(noon, 1), TokenTTL: 10 * time.Hour}
	mux := NewMux()
	mux.Handle("GET /v1/watch", AnyCaller().UserToken(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, token, _ := strings.Cut(s.WatchURL(r, Grant{Owner: CallerFrom(r).Owner(), Job: testGrant().Job}, "/", ""), "token=")
		g, err := s.Tokens.Open(token)
		if err != nil || g.IsUser() || !g.Expires.Equal(userGrant().Expires) {
			t.Errorf("%+v, %v", g, err)
		}
		w.WriteHeader(204)
	}))
	h := s.Handler(mux)
	if w := requestTo(h, "GET", "/v1/watch?token="+seal(s.Tokens, userGrant())); w.Code != 204 {
		t.Error(w.Code, w.Body)
	}
	if w := requestTo(h, "GET", "/v1/watch?token="+seal(s.Tokens, testGrant())); w.Code != 403 {
		t.Error("a watch token opens a call of users", w.Code, w.Body)
	}
}

// A request with a token gets no new token.
func TestTokenGetsNoNewToken(t *testing.T) {
	t.Parallel()
	s := &Gate{Tokens: tokensAt(noon, 1)}
	mux := NewMux()
	asked := 0
	mux.Handle("GET /v1/watch", AnyCaller().WatchToken(0, ""), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked++
		if got := s.WatchURL(r, testGrant(), "/v1/jobs/", "/events"); got != "" {
			t.Errorf("it gets %s", got)
		}
	}))
	if requestTo(s.Handler(mux), "GET", "/v1/watch?token="+seal(s.Tokens, testGrant())); asked != 1 {
		t.Error("it was not admitted")
	}
	if got := (*Gate)(nil).WatchURL(httptest.NewRequest("GET", "/", nil), testGrant(), "/v1/jobs/", "/events"); got != "" {
		t.Errorf("no gate, and %q", got)
	}
}

func BenchmarkSeal(b *testing.B) {
	tokens, g := tokensAt(noon, 1), testGrant()
	b.ReportAllocs()
	var space [256]byte
	for b.Loop() {
		tokens.Seal(space[:0], g)
	}
}
