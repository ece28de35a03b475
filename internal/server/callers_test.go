package server

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// keyList are keys that a test changes.
type keyList struct {
	mu      sync.Mutex
	keys    map[string]access.Key // guarded by mu
	tenants []string              // their ids
}

func (*keyList) On() bool       { return true }
func (*keyList) Now() time.Time { return time.Now() }

func (l *keyList) Find(id string) (*access.Key, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.keys[id]
	return &k, ok
}

func (l *keyList) Tenant(id string) *access.Tenant {
	if !slices.Contains(l.tenants, id) {
		return nil
	}
	return &access.Tenant{ID: id}
}

// add adds a key of a role. change may be nil.
func (l *keyList) add(t *testing.T, tenant, role string, change func(*access.Key)) (id, text string) {
	t.Helper()
	names, err := access.RoleScopes(role)
	if err != nil {
		t.Fatal(err)
	}
	scopes, work, err := access.ParseScopes(names)
	if err != nil {
		t.Fatal(err)
	}
	secret := access.NewSecret()
	k := access.Key{ID: access.NewKeyID(), Tenant: tenant, Name: "k", Scopes: scopes, Work: work, Hash: secret.Hash()}
	if change != nil {
		change(&k)
	}
	if err := k.Check(); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[k.ID] = k
	return k.ID, access.KeyText(k.ID, secret)
}

// revoke revokes a key, as any process may.
func (l *keyList) revoke(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[id]
	k.Revoked = time.Now()
	l.keys[id] = k
}

// keyedServer is a server with keys, whose tenant shop has the users ann and bob.
type keyedServer struct {
	*testServer
	keys *keyList
	app  string // a key of shop that acts as users, with the scopes of an operator and webhooks
}

func serveKeyed(t *testing.T, change func(*config.Config)) *keyedServer {
	t.Helper()
	s := &keyedServer{keys: &keyList{keys: map[string]access.Key{}, tenants: []string{"", "shop", "other"}}}
	s.testServer = serveWith(t, change, func(srv *Server) error {
		srv.components.gate.Keys = s.keys
		return nil
	})
	_, s.app = s.keys.add(t, "shop", "operator", func(k *access.Key) { k.ActAs, k.Scopes = true, k.Scopes|access.Webhooks })
	return s
}

// as returns the headers of a key, and others.
func as(key string, more ...string) []string {
	return append([]string{"Authorization", "Bearer " + key}, more...)
}

// jobOf submits a job with a file as a user, and waits for its end.
func (s *keyedServer) jobOf(user string, headers ...string) map[string]any {
	s.t.Helper()
	headers = append(as(s.app, "X-User-ID", user, "Prefer", "wait=60, watch=cancel"), headers...)
	status, j := s.submitFiles(`{"queue":"shelf"}`, map[string]string{"x": "the content"}, headers...)
	if status != 200 || j["status"] != "succeeded" {
		s.t.Fatal(status, j)
	}
	return j
}

// chatOf asks a question as a user.
func (s *keyedServer) chatOf(user string) (task, conversation string) {
	s.t.Helper()
	status, chat := s.call("POST", "/api/chat", `{"query":"hello"}`, as(s.app, "X-User-ID", user)...)
	if status != 202 {
		s.t.Fatal(status, chat)
	}
	return chat["task_id"].(string), chat["conversation_id"].(string)
}

// callers returns the headers of each caller of the table, in the order of its columns.
func (s *keyedServer) callers(t *testing.T) (list []callerOfTable) {
	t.Helper()
	shop := func(role string, change func(*access.Key)) []string {
		_, key := s.keys.add(t, "shop", role, change)
		return as(key)
	}
	_, admin := s.keys.add(t, "", "admin", nil)
	_, others := s.keys.add(t, "other", "operator", func(k *access.Key) { k.Scopes |= access.Webhooks })
	_, token, _ := strings.Cut(s.jobOf("ann")["urls"].(map[string]any)["watch"].(string), "token=")
	_, minted := s.call("POST", "/v1/tokens", `{}`, as(s.app, "X-User-ID", "bob")...)
	bobs, _ := minted["token"].(string)
	if token == "" || bobs == "" {
		t.Fatal(token, minted)
	}
	return []callerOfTable{
		{"nobody", nil},
		{"a wrong key", as(access.KeyText(access.NewKeyID(), access.NewSecret()))},
		{"an expired key", shop("operator", func(k *access.Key) { k.Expires = time.Now() })},
		{"a revoked key", shop("operator", func(k *access.Key) { k.Revoked = time.Now() })},
		{"another tenant", as(others)},
		{"another user", as(s.app, "X-User-ID", "bob")},
		{"a viewer", shop("viewer", nil)},
		{"a viewer without payloads", shop("meta-viewer", nil)},
		{"a submitter", shop("submitter", nil)},
		{"an operator", shop("operator", nil)},
		{"an admin", as(admin, "X-Tenant", "shop")},
		{"the token of another job", as(token)},
		{"the token of another user", as(bobs)},
		{"the user's application", as(s.app, "X-User-ID", "ann")},
	}
}

type callerOfTable struct {
	name    string
	headers []string
}

// accessTable says which caller may use which route, for what belongs to the user ann of the
// tenant shop. There is a column for each of [keyedServer.callers], in groups: nobody and ended
// keys; another tenant, another user; viewer, viewer without payloads, submitter, operator; admin;
// tokens of another job and of another user; the user's application.
//
// + is let in; 1, 3 and 4 are the statuses 401, 403 and 404.
var accessTable = map[string]string{
	"POST /v1/jobs":                                       "1111 ++ 33++ + 3+ +",
	"POST /v1/jobs multipart":                             "1111 ++ 33++ + 3+ +",
	"GET /v1/jobs":                                        "1111 ++ ++++ + 3+ +",
	"POST /v1/jobs/batch":                                 "1111 ++ 33++ + 33 +",
	"GET /v1/jobs/{id}":                                   "1111 44 ++++ + 44 +",
	"DELETE /v1/jobs/{id}":                                "1111 44 333+ + 33 +",
	"GET /v1/jobs/{id}/output":                            "1111 44 +3++ + 44 +",
	"GET /v1/jobs/{id}/events":                            "1111 44 +3++ + 44 +",
	"GET /v1/jobs/{id}/result":                            "1111 44 +3++ + 44 +",
	"GET /v1/jobs/{id}/files/{name}":                      "1111 44 +3++ + 33 +",
	"POST /v1/jobs/{id}/cancel":                           "1111 44 33++ + 44 +",
	"POST /v1/jobs/{id}/retry":                            "1111 44 333+ + 33 +",
	"POST /v1/jobs/cancel":                                "1111 ++ 33++ + 33 +",
	"POST /v1/jobs/retry":                                 "1111 ++ 333+ + 33 +",
	"POST /v1/jobs/delete":                                "1111 ++ 333+ + 33 +",
	"GET /v1/watch":                                       "1111 ++ +3++ + ++ +",
	"POST /v1/tokens":                                     "1111 3+ 3333 3 3+ +",
	"GET /v1/queues":                                      "1111 ++ ++++ + 33 +",
	"GET /v1/queues/{queue}":                              "1111 ++ ++++ + 33 +",
	"POST /v1/queues/{queue}/pause":                       "1111 33 3333 + 33 3",
	"POST /v1/queues/{queue}/resume":                      "1111 33 3333 + 33 3",
	"POST /api/chat":                                      "1111 ++ 33++ + 3+ +",
	"GET /api/chat/status/{task}":                         "1111 44 4344 4 34 +",
	"POST /api/chat/cancel/{task}":                        "1111 44 3344 4 34 +",
	"GET /api/conversations":                              "1111 ++ +3++ + 3+ +",
	"POST /api/conversations":                             "1111 ++ 33++ + 3+ +",
	"GET /api/conversations/{id}":                         "1111 44 4344 4 34 +",
	"GET /api/conversations/{id}/messages":                "1111 44 4344 4 34 +",
	"DELETE /api/conversations/{id}":                      "1111 44 3334 4 33 +",
	"POST /api/heartbeat":                                 "1111 ++ +3++ + 3+ +",
	"GET /ws":                                             "1111 ++ +3++ + 3+ +",
	"GET /v1/admin/keys":                                  "1111 33 3333 + 33 3",
	"POST /v1/admin/keys":                                 "1111 33 3333 + 33 3",
	"GET /v1/admin/keys/{key}":                            "1111 33 3333 + 33 3",
	"POST /v1/admin/keys/{key}/revoke":                    "1111 33 3333 + 33 3",
	"POST /v1/admin/keys/{key}/rotate":                    "1111 33 3333 + 33 3",
	"GET /v1/admin/tenants":                               "1111 33 3333 + 33 3",
	"POST /v1/admin/tenants":                              "1111 33 3333 + 33 3",
	"GET /v1/admin/tenants/{tenant}":                      "1111 33 3333 + 33 3",
	"PATCH /v1/admin/tenants/{tenant}":                    "1111 33 3333 + 33 3",
	"DELETE /v1/admin/tenants/{tenant}":                   "1111 33 3333 + 33 3",
	"GET /v1/keys":                                        "1111 33 3333 + 33 3",
	"POST /v1/keys":                                       "1111 33 3333 + 33 3",
	"GET /v1/keys/{key}":                                  "1111 33 3333 + 33 3",
	"POST /v1/keys/{key}/revoke":                          "1111 33 3333 + 33 3",
	"POST /v1/keys/{key}/rotate":                          "1111 33 3333 + 33 3",
	"POST /v1/webhook_endpoints":                          "1111 ++ 3333 + 33 +",
	"GET /v1/webhook_endpoints":                           "1111 ++ 3333 + 33 +",
	"GET /v1/webhook_event_types":                         "1111 ++ 3333 + 33 +",
	"GET /v1/webhook_endpoints/{endpoint}":                "1111 4+ 3333 + 33 +",
	"POST /v1/webhook_endpoints/{endpoint}":               "1111 4+ 3333 + 33 +",
	"POST /v1/webhook_endpoints/{endpoint}/rotate_secret": "1111 4+ 3333 + 33 +",
	"POST /v1/webhook_endpoints/{endpoint}/test":          "1111 4+ 3333 + 33 +",
	"POST /v1/webhook_endpoints/{endpoint}/disable":       "1111 4+ 3333 + 33 +",
	"POST /v1/webhook_endpoints/{endpoint}/enable":        "1111 4+ 3333 + 33 +",
	"DELETE /v1/webhook_endpoints/{endpoint}":             "1111 4+ 3333 4 33 4",
	"GET /healthz":                                        "+111 ++ ++++ + 33 +",
	"GET /readyz":                                         "+111 ++ ++++ + 33 +",
	"GET /openapi.json":                                   "1111 ++ ++++ + 33 +",
	"GET /docs":                                           "1111 ++ ++++ + 33 +",
	"GET /":                                               "1111 33 3333 + 33 3",
	"GET /metrics":                                        "1111 33 3333 + 33 3",
}

// tableBodies are the bodies of the calls that need one.
var tableBodies = map[string]string{
	"POST /v1/webhook_endpoints/{endpoint}":      `{"name":"other"}`,
	"POST /v1/webhook_endpoints/{endpoint}/test": `{"event_type":"job.succeeded"}`,
	"POST /v1/jobs":        `{"queue":"sim","input":{}}`,
	"POST /v1/jobs/batch":  `{"jobs":[{"queue":"sim","input":{}}]}`,
	"POST /v1/jobs/cancel": `{"key":"none"}`,
	"POST /v1/jobs/retry":  `{"key":"none"}`,
	"POST /v1/jobs/delete": `{"key":"none"}`,
	"POST /api/chat":       `{"query":"hello"}`,
}

// Every route of the server answers every caller as the table says, and no route is missing there.
func TestEveryRouteAsksItsCaller(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, filesQueue)
	id := s.jobOf("ann")["id"].(string)
	task, conversation := s.chatOf("ann")
	callers := s.callers(t)
	tenant, key := s.managed(callers[10].headers)
	endpoint := s.endpoint()
	routes := append(s.routes(), described(t, s.testServer, callers[len(callers)-1].headers...)...)
	routes = append(routes, "POST /v1/jobs multipart")
	for i, route := range routes {
		routes[i] = strings.TrimSuffix(route, "{$}")
	}
	// What deletes comes last.
	slices.SortFunc(routes, func(a, b string) int {
		if x, y := strings.HasPrefix(a, "DELETE"), strings.HasPrefix(b, "DELETE"); x != y {
			if x {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	for route := range accessTable {
		if !slices.Contains(routes, route) {
			t.Errorf("there is no route %s", route)
		}
	}
	for _, route := range slices.Compact(routes) {
		row, ok := accessTable[route]
		if !ok {
			t.Errorf("nothing says who may use %s: add it to the table", route)
			continue
		}
		cells := strings.ReplaceAll(row, " ", "")
		if len(cells) != len(callers) {
			t.Fatalf("the row of %s has %d cells for %d callers", route, len(cells), len(callers))
		}
		pattern, multipart := strings.CutSuffix(route, " multipart")
		of := id
		switch {
		case strings.Contains(route, "/conversations/{id}"):
			of = conversation
		case strings.Contains(route, "{task}"):
			of = task
		}
		method, path := at(pattern, of)
		path = strings.NewReplacer("{tenant}", tenant, "{key}", key, "{endpoint}", endpoint).Replace(path)
		for i, c := range callers {
			headers := append(slices.Clone(c.headers), "Accept", "text/html, */*")
			var status int
			if multipart {
				status, _ = s.submitFiles(`{"queue":"shelf"}`, map[string]string{"x": "1"}, headers...)
			} else {
				status, _ = s.text(method, path, tableBodies[pattern], headers...)
			}
			if got := cellOf(status); got != cells[i] {
				t.Errorf("%s answers %s with %d, and the table says %c", route, c.name, status, cells[i])
			}
		}
	}
}

// managed makes a tenant, and a key of the tenant shop, that an administrator manages.
func (s *keyedServer) managed(admin []string) (tenant, key string) {
	s.t.Helper()
	for _, name := range []string{"shop", "idle"} {
		if status, answer := s.call("POST", "/v1/admin/tenants", `{"name":"`+name+`"}`, admin...); status != 201 {
			s.t.Fatal(status, answer)
		}
	}
	status, made := s.call("POST", "/v1/admin/keys", `{"tenant":"shop","name":"web","scopes":["read"]}`, admin...)
	if status != 201 {
		s.t.Fatal(status, made)
	}
	return "idle", made["id"].(string)
}

// endpoint makes a webhook endpoint of the tenant shop.
func (s *keyedServer) endpoint() (id string) {
	s.t.Helper()
	status, made := s.call("POST", "/v1/webhook_endpoints", `{"name":"e","url":"https://example.com/hook","event_types":["job.succeeded"]}`, as(s.app)...)
	if status != 201 && status != 200 {
		s.t.Fatal(status, made)
	}
	return made["id"].(string)
}

// cellOf returns the cell of the table for a status. One address sends so many wrong keys here that
// it is told to wait, with 429 in place of 401.
func cellOf(status int) byte {
	switch status {
	case 429:
		return '1'
	case 401, 403, 404:
		return byte('0' + status%10)
	default:
		return '+'
	}
}

// A viewer without payloads learns how a job is, and nothing of what is in it.
func TestViewerWithoutPayloadsSeesNone(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, filesQueue)
	j := s.jobOf("ann")
	_, meta := s.keys.add(t, "shop", "meta-viewer", nil)
	for _, path := range []string{"/v1/jobs/" + j["id"].(string), "/v1/jobs"} {
		status, text := s.text("GET", path, "", as(meta)...)
		if status != 200 || !strings.Contains(text, `"status":"succeeded"`) || strings.Contains(text, "content") || strings.Contains(text, "wt_") || strings.Contains(text, "sha256") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

// A key that only submits does not read by it: neither what it waits for, nor an earlier job of an
// idempotency key, nor through a watch URL.
func TestSubmitDoesNotRead(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, filesQueue)
	_, key := s.keys.add(t, "shop", "submitter", func(k *access.Key) { k.Scopes = access.Submit; k.ActAs = true })
	for range 2 {
		status, j := s.submitFiles(`{"queue":"shelf"}`, map[string]string{"x": "the content"}, as(key, "Prefer", "wait=60", "Idempotency-Key", "k")...)
		if status != 200 || j["status"] != "succeeded" || j["output_text"] != "" || j["result"] != nil || j["urls"].(map[string]any)["watch"] != nil {
			t.Errorf("%d %v", status, j)
		}
	}
}

// Idempotency keys belong to the tenant and the user: the same key of others finds nothing.
func TestIdempotencyKeysOfOthersAreOthers(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, nil)
	_, others := s.keys.add(t, "other", "operator", func(k *access.Key) { k.ActAs = true })
	ids := map[string]bool{}
	for _, headers := range [][]string{as(s.app, "X-User-ID", "ann"), as(s.app, "X-User-ID", "bob"), as(others, "X-User-ID", "ann")} {
		status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{"tokens":`+[]string{"1", "2", "3"}[len(ids)]+`}}`, append(headers, "Idempotency-Key", "k")...)
		if status != 202 {
			t.Fatal(status, j)
		}
		ids[j["id"].(string)] = true
	}
	if len(ids) != 3 {
		t.Error(ids)
	}
}

// A job that is not the caller's and one that does not exist get the same answer, but for the id.
func TestForeignJobLooksLikeNone(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, filesQueue)
	ids := []string{s.jobOf("ann")["id"].(string), job.NewID().String()}
	_, others := s.keys.add(t, "other", "operator", nil)
	for _, headers := range [][]string{as(others), as(s.app, "X-User-ID", "bob")} {
		for _, route := range s.routes() {
			if !strings.Contains(route, "/v1/jobs/{id}") {
				continue
			}
			var answers []string
			for _, id := range ids {
				method, path := at(route, id)
				_, text := s.text(method, path, "", headers...)
				answers = append(answers, strings.ReplaceAll(text, id, "ID"))
			}
			if answers[0] != answers[1] {
				t.Errorf("%s: %q and %q", route, answers[0], answers[1])
			}
		}
	}
}

// A key without act_as reads and changes the jobs of all users of its tenant, and of no other.
func TestKeyWorksOnItsWholeTenant(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, nil)
	_, operator := s.keys.add(t, "shop", "operator", nil)
	_, others := s.keys.add(t, "other", "operator", func(k *access.Key) { k.ActAs = true })
	submit := func(headers []string) string {
		status, j := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"delay_s":3600}`, headers...)
		if status != 202 {
			t.Fatal(status, j)
		}
		return j["id"].(string)
	}
	anns, bobs, own := submit(as(s.app, "X-User-ID", "ann")), submit(as(s.app, "X-User-ID", "bob")), submit(as(operator))
	foreign := submit(as(others, "X-User-ID", "ann"))
	list := func(query string, headers []string) (ids []string) {
		_, page := s.call("GET", "/v1/jobs"+query, "", headers...)
		for _, j := range page["data"].([]any) {
			ids = append(ids, j.(map[string]any)["id"].(string))
		}
		return ids
	}
	if got := list("?queue=sim&status=scheduled", as(operator)); !slices.Equal(got, []string{own, bobs, anns}) {
		t.Error(got)
	}
	if got := list("", as(s.app, "X-User-ID", "bob")); !slices.Equal(got, []string{bobs}) {
		t.Error(got)
	}
	if status, j := s.call("POST", "/v1/jobs/"+anns+"/cancel", "", as(operator)...); status != 200 || j["status"] != "cancelled" {
		t.Error(status, j)
	}
	if status, j := s.call("POST", "/v1/jobs/cancel", `{"all":true}`, as(operator)...); status != 200 || j["done"] != 2.0 {
		t.Error(status, j)
	}
	if status, j := s.call("POST", "/v1/jobs/"+anns+"/retry", "", as(operator)...); status != 202 {
		t.Error(status, j)
	}
	for range 2 {
		if status, text := s.text("DELETE", "/v1/jobs/"+bobs, "", as(operator)...); status != 204 {
			t.Error(status, text)
		}
	}
	if _, j := s.call("GET", "/v1/jobs/"+foreign, "", as(others, "X-User-ID", "ann")...); j["status"] != "scheduled" {
		t.Error("a job of another tenant was changed:", j)
	}
}

// No count of whole queues is shown to a key of a tenant.
func TestQueuesHideOtherTenants(t *testing.T) {
	t.Parallel()
	s := serveKeyed(t, nil)
	s.call("POST", "/v1/jobs", `{"queue":"sim","input":{},"delay_s":3600}`, as(s.app)...)
	_, viewer := s.keys.add(t, "other", "viewer", nil)
	_, admin := s.keys.add(t, "", "admin", nil)
	for key, shown := range map[string]bool{viewer: false, admin: true} {
		_, q := s.call("GET", "/v1/queues/sim", "", as(key)...)
		for _, field := range []string{"counts", "totals", "oldest_queued_s", "waiting_bytes"} {
			if q["name"] != "sim" || (q[field] != nil) != shown {
				t.Errorf("%s is %v", field, q[field])
			}
		}
	}
}

// A server listens beyond its machine once it has a key. Without one it refuses to start, and
// closes what it had opened.
func TestListeningBeyondTheMachineNeedsAKey(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.quit()
	cfg := s.cfg
	cfg.Listen = "0.0.0.0:0"
	log := slog.New(slog.DiscardHandler)
	if _, err := Open(t.Context(), cfg, log); err == nil || !strings.Contains(err.Error(), "meanwhile key create") {
		t.Fatalf("without keys: %v", err)
	}
	s = serve(t, func(c *config.Config) { c.Data, c.Database = cfg.Data, cfg.Database })
	if status, made := s.call("POST", "/v1/admin/keys", `{"name":"k","scopes":["read"]}`); status != 201 {
		t.Fatal(status, made)
	}
	s.quit()
	exposed, err := Open(t.Context(), cfg, log)
	if err != nil {
		t.Fatalf("with a key: %v", err)
	}
	if err := exposed.Close(); err != nil {
		t.Error(err)
	}
}
