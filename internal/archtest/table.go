// Package archtest checks the imports of the module. A table says which package may
// import which, and a second one names the accident that each forbidden import prevents.
// Other tests check further rules for the code, and the links of the documentation.
package archtest

// pkg is a package of the module and the imports that its production code may have besides
// the standard library.
type pkg struct {
	path      string
	imports   []string // packages of this module
	libraries []string // prefixes of import paths of other modules
}

// packages lists every package. The test fails for a package that is not in the list, so
// that a new package needs a decision.
var packages = []pkg{
	{path: "cmd/meanwhile", imports: []string{"internal/cli"}},
	{path: ".", imports: []string{"client", "internal/config", "internal/exec", "internal/exec/fn", "internal/job", "internal/server", "internal/testmode"}},
	{path: "meanwhiletest", imports: []string{".", "client", "internal/testmode"}},
	{path: "client"},
	{path: "examples/thumbnails", imports: []string{".", "client"}},
	{path: "examples/orders", imports: []string{".", "client"}, libraries: []string{"github.com/jackc/pgx/v5"}},
	{path: "bench", imports: []string{"client"}, libraries: []string{"github.com/jackc/pgx/v5"}},

	{path: "internal/job", libraries: []string{"github.com/google/uuid"}},
	{path: "internal/access", imports: []string{"internal/job"}},
	{path: "internal/fairqueue", imports: []string{"internal/job"}},
	{path: "internal/store", imports: []string{"internal/job"}},
	{path: "internal/store/postgres", imports: []string{"internal/job", "internal/store", "internal/store/codec", "internal/store/dump", "internal/store/ops", "internal/store/sealed", "internal/fairqueue"}, libraries: []string{"github.com/jackc/pgx/v5"}},
	{path: "internal/store/codec", imports: []string{"internal/job"}},
	{path: "internal/store/sealed", imports: []string{"internal/job", "internal/store"}},
	{path: "internal/store/dump", imports: []string{"internal/job", "internal/store", "internal/store/ops"}},
	{path: "internal/store/ops", imports: []string{"internal/job", "internal/store", "internal/fairqueue"}},
	{path: "internal/store/sqlite", imports: []string{"internal/job", "internal/store", "internal/store/codec", "internal/store/dump", "internal/store/ops", "internal/store/sealed", "internal/fairqueue"}, libraries: []string{"golang.org/x/sys/unix", "zombiezen.com/go/sqlite"}},
	{path: "internal/store/faulty", imports: []string{"internal/bus", "internal/job", "internal/store"}},
	{path: "internal/store/storetest", imports: []string{"internal/job", "internal/store"}, libraries: []string{"pgregory.net/rapid", "go.uber.org/goleak"}},

	{path: "internal/files", imports: []string{"internal/job"}},
	{path: "internal/files/pgfiles", imports: []string{"internal/files", "internal/job"}, libraries: []string{"github.com/jackc/pgx/v5"}},
	{path: "internal/watch", imports: []string{"internal/job"}},
	{path: "internal/bus", imports: []string{"internal/job"}},
	{path: "internal/bus/pgbus", imports: []string{"internal/job", "internal/bus"}, libraries: []string{"github.com/jackc/pgx/v5/pgconn"}},
	{path: "internal/engine", imports: []string{"internal/bus", "internal/job", "internal/fairqueue", "internal/store", "internal/watch"}},

	{path: "internal/exec", imports: []string{"internal/job"}},
	{path: "internal/exec/sim", imports: []string{"internal/job", "internal/exec", "internal/strictjson"}},
	{path: "internal/exec/llm", imports: []string{"internal/job", "internal/exec"}, libraries: []string{"golang.org/x/sys/unix"}},
	{path: "internal/exec/fn", imports: []string{"internal/job", "internal/exec"}},
	{path: "internal/exec/process", imports: []string{"internal/job", "internal/exec"}, libraries: []string{"golang.org/x/sys/unix"}},
	{path: "internal/exec/exectest", imports: []string{"internal/job", "internal/exec"}, libraries: []string{"go.uber.org/goleak"}},
	{path: "internal/runner", imports: []string{"internal/job", "internal/exec"}},
	{path: "internal/simmodel"},
	{path: "internal/strictjson", imports: []string{"internal/job"}},
	{path: "internal/loopback"},
	{path: "internal/netguard"},
	{path: "internal/webhook", imports: []string{"internal/job", "internal/exec", "internal/netguard"}},
	{path: "internal/testmode"},
	{path: "internal/cutproxy"},
	{path: "internal/pgtest", libraries: []string{"github.com/jackc/pgx/v5"}},

	{path: "internal/move", imports: []string{"internal/job", "internal/files", "internal/store/dump", "internal/store/postgres", "internal/store/sealed", "internal/store/sqlite"}},
	{path: "internal/inbox", imports: []string{"internal/job", "internal/engine"}, libraries: []string{"github.com/jackc/pgx/v5"}},
	{path: "internal/conversation", imports: []string{"internal/job", "internal/store"}},
	{path: "internal/callback", imports: []string{"internal/job", "internal/store", "internal/webhook"}},
	{path: "internal/api", imports: []string{"internal/job", "internal/strictjson"}},
	{path: "internal/api/gate", imports: []string{"internal/access", "internal/job", "internal/api"}},
	{path: "internal/api/stream", imports: []string{"internal/job", "internal/watch", "internal/api"}, libraries: []string{"github.com/coder/websocket"}},
	{path: "internal/api/jobs", imports: append([]string{"internal/api", "internal/api/gate", "internal/api/stream"}, apiImports...)},
	{path: "internal/api/chat", imports: append([]string{"internal/api", "internal/api/gate", "internal/api/stream"}, apiImports...)},
	{path: "internal/api/admin", imports: []string{"internal/access", "internal/job", "internal/api", "internal/api/gate"}},
	{path: "internal/api/openapi", imports: []string{"internal/api", "internal/api/gate", "internal/job"}, libraries: []string{"go.yaml.in/yaml/v3"}},
	{path: "internal/api/webhooks", imports: []string{"internal/access", "internal/api", "internal/api/gate", "internal/callback", "internal/job"}},
	{path: "internal/api/openapi/openapitest", imports: []string{"internal/api/openapi"}, libraries: []string{"github.com/santhosh-tekuri/jsonschema/v6"}},

	{path: "internal/telemetry", imports: []string{"internal/job", "internal/engine"},
		libraries: []string{"github.com/prometheus/client_golang", "go.opentelemetry.io/otel"}},
	{path: "internal/config", imports: []string{"internal/job", "internal/netguard"}, libraries: []string{"go.yaml.in/yaml/v3"}},
	{path: "internal/server", imports: []string{
		"internal/access", "internal/bus", "internal/bus/pgbus", "internal/config", "internal/job", "internal/store", "internal/store/sealed", "internal/store/sqlite", "internal/store/postgres", "internal/engine", "internal/files", "internal/files/pgfiles", "internal/conversation", "internal/callback", "internal/netguard", "internal/webhook", "internal/inbox", "internal/move",
		"internal/telemetry", "internal/runner", "internal/exec", "internal/exec/sim", "internal/exec/llm", "internal/exec/process", "internal/simmodel", "internal/loopback",
		"internal/api", "internal/api/admin", "internal/api/gate", "internal/api/jobs", "internal/api/chat", "internal/api/webhooks", "internal/api/openapi"}},
	{path: "internal/cli", imports: []string{
		"client", "bench", "internal/config", "internal/job", "internal/telemetry", "internal/server", "internal/simmodel", "internal/webhook"},
		libraries: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/sys/unix", "golang.org/x/text/width"}},

	{path: "internal/model"},
	{path: "internal/crash", imports: []string{"client", "internal/cutproxy", "internal/pgtest"}, libraries: []string{"github.com/anishathalye/porcupine"}},
	{path: "internal/attack"},
	{path: "internal/notices"},
	{path: "internal/archtest"},
}

// apiImports lists what each API may import. It has internal/store for the types that the
// engine returns, but no implementation of a store.
var apiImports = []string{"internal/access", "internal/job", "internal/store", "internal/engine", "internal/watch", "internal/files", "internal/conversation"}

// forbiddenEdge is an import that is forbidden on purpose, and the accident that it would
// allow. A path that ends in /… stands for all packages below it.
type forbiddenEdge struct{ from, to, accident string }

var forbidden = []forbiddenEdge{
	{"client", "internal/…", "every user of the client would compile the server, and no internal type could change any more"},
	{"internal/job", "internal/…", "job would depend on packages that depend on it, and every package would build with all others"},
	{"internal/store/…", "internal/engine", "a rule would be written in one store, and the next store would have another"},
	{"internal/store/storetest", "internal/fairqueue", "the suite would compute the expected order with the code that it checks"},
	{"internal/fairqueue", "internal/store", "a rule could read the disk or the clock, and would differ between stores"},
	{"internal/fairqueue", "internal/store/…", "a rule would work with one store only"},
	{"internal/store/…", "internal/store/sqlite", "a store that uses another store could not replace it"},
	{"internal/store/…", "internal/conversation", "a store would interpret chats; to a store the rows beside a job are bytes"},
	{"internal/store/…", "internal/access", "a rule of access would hold in one store only; to a store keys are bytes beside jobs"},
	{"internal/engine", "internal/store/…", "the engine would work with one store only"},
	{"internal/engine", "internal/exec", "the engine would wait for work, and every other job would wait with it; only a runner waits"},
	{"internal/engine", "internal/callback", "the commit loop would change with each kind of receiver; internal/server passes it a function instead"},
	{"internal/engine", "internal/conversation", "the commit loop would change with each API; internal/server passes it a function instead"},
	{"internal/engine", "internal/api/…", "a rule of the engine would hold for one API only"},
	{"internal/runner", "internal/engine", "a runner could run only inside the server, and a remote worker could not share its code"},
	{"internal/exec/…", "internal/engine", "an executor could finish a job without the lease, around its runner"},
	{"internal/exec/…", "internal/store", "an executor could write output without the lease"},
	{"internal/api/…", "internal/store/…", "an API could write around the commit loop, or return data that is not on disk yet"},
	{"internal/api/…", "internal/exec", "a request would do the slow work itself while its client waits"},
	{"internal/api", "internal/api/…", "the base package would change with each API built on it"},
	{"internal/api/gate", "internal/api/stream", "a request could get its stream before its user is known"},
	{"internal/api/gate", "internal/api/…", "the gate would know the routes of one API, and would admit requests of another by the wrong rules"},
	{"internal/api/gate", "internal/engine", "admission would depend on stored data, and every request would wait for a read"},
	{"internal/api/stream", "internal/api/…", "streams would belong to one API, and the next API would copy them"},
	{"internal/api/stream", "internal/engine", "a watcher could change the job that it follows, and closing a stream could cancel it"},
	{"internal/api/jobs", "internal/api/chat", "a change of the chat API would change the jobs API"},
	{"internal/api/chat", "internal/api/jobs", "a change of the jobs API would change the chat API"},
	{"internal/netguard", "internal/…", "a rule about addresses would depend on who asks, and another caller would reach inside"},
	{"internal/simmodel", "internal/…", "the simulated model would share code with its client, and both could be wrong in the same way"},
	{"internal/crash", "internal/job", "the crash test would judge the server by the server's own code"},
	{"internal/crash", "internal/engine", "the crash test would judge the server by the server's own code"},
	{"internal/crash", "internal/store/…", "the crash test would judge the server by the server's own code"},
	{"bench", "internal/…", "the benchmark would use shortcuts that no user has"},
}
