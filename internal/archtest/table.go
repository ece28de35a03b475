// Package archtest holds the plan of the house as data: which room may import
// which, and why some doors are walled up. Its test fails when an import breaks
// the plan, with the accident that the wall prevents.
package archtest

// pkg is a package of the module and what its production code may import beside
// the standard library.
type pkg struct {
	path      string
	may       []string // rooms of the module
	libraries []string // other modules, by the prefix of their import paths
}

// packages is every room. A package that is not here is refused: a new room is a
// decision.
var packages = []pkg{
	{path: "cmd/meanwhile", may: []string{"internal/cli"}},
	{path: ".", may: []string{"client", "internal/config", "internal/exec", "internal/exec/fn", "internal/job", "internal/server"}},
	{path: "client"},
	{path: "bench", may: []string{"client"}},

	{path: "internal/job", libraries: []string{"github.com/google/uuid"}},
	{path: "internal/fairqueue", may: []string{"internal/job"}},
	{path: "internal/store", may: []string{"internal/job"}},
	{path: "internal/store/sqlite", may: []string{"internal/job", "internal/store", "internal/fairqueue"}, libraries: []string{"golang.org/x/sys/unix", "zombiezen.com/go/sqlite"}},
	{path: "internal/store/faulty", may: []string{"internal/bus", "internal/job", "internal/store"}},
	{path: "internal/store/storetest", may: []string{"internal/job", "internal/store"}, libraries: []string{"pgregory.net/rapid", "go.uber.org/goleak"}},

	{path: "internal/files", may: []string{"internal/job"}},
	{path: "internal/watch", may: []string{"internal/job"}},
	{path: "internal/bus", may: []string{"internal/job"}},
	{path: "internal/engine", may: []string{"internal/bus", "internal/job", "internal/fairqueue", "internal/store", "internal/watch"}},

	{path: "internal/exec", may: []string{"internal/job"}},
	{path: "internal/exec/sim", may: []string{"internal/job", "internal/exec", "internal/strictjson"}},
	{path: "internal/exec/llm", may: []string{"internal/job", "internal/exec"}},
	{path: "internal/exec/fn", may: []string{"internal/job", "internal/exec"}},
	{path: "internal/exec/process", may: []string{"internal/job", "internal/exec"}},
	{path: "internal/exec/exectest", may: []string{"internal/job", "internal/exec"}, libraries: []string{"go.uber.org/goleak"}},
	{path: "internal/runner", may: []string{"internal/job", "internal/exec"}},
	{path: "internal/simmodel"},
	{path: "internal/strictjson", may: []string{"internal/job"}},
	{path: "internal/loopback"},
	{path: "internal/cutproxy"},

	{path: "internal/conversation", may: []string{"internal/job", "internal/store"}},
	{path: "internal/api", may: []string{"internal/job", "internal/strictjson"}},
	{path: "internal/api/gate", may: []string{"internal/job", "internal/api"}},
	{path: "internal/api/stream", may: []string{"internal/job", "internal/watch", "internal/api"}, libraries: []string{"github.com/coder/websocket"}},
	{path: "internal/api/jobs", may: append([]string{"internal/api", "internal/api/gate", "internal/api/stream"}, apiImports...)},
	{path: "internal/api/chat", may: append([]string{"internal/api", "internal/api/gate", "internal/api/stream"}, apiImports...)},
	{path: "internal/api/openapi", may: []string{"internal/api", "internal/job"}, libraries: []string{"go.yaml.in/yaml/v3"}},
	{path: "internal/api/openapi/openapitest", may: []string{"internal/api/openapi"}, libraries: []string{"github.com/santhosh-tekuri/jsonschema/v6"}},

	{path: "internal/telemetry", may: []string{"internal/job", "internal/engine"},
		libraries: []string{"github.com/prometheus/client_golang", "go.opentelemetry.io/otel"}},
	{path: "internal/config", may: []string{"internal/job"}, libraries: []string{"go.yaml.in/yaml/v3"}},
	{path: "internal/server", may: []string{
		"internal/config", "internal/job", "internal/store", "internal/store/sqlite", "internal/engine", "internal/files", "internal/conversation",
		"internal/telemetry", "internal/runner", "internal/exec", "internal/exec/sim", "internal/exec/llm", "internal/exec/process", "internal/simmodel", "internal/loopback",
		"internal/api", "internal/api/gate", "internal/api/jobs", "internal/api/chat", "internal/api/openapi"}},
	{path: "internal/cli", may: []string{
		"client", "bench", "internal/config", "internal/job", "internal/telemetry", "internal/server", "internal/simmodel"},
		libraries: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/sys/unix"}},

	{path: "internal/crash", may: []string{"client"}},
	{path: "internal/archtest"},
}

// apiImports is what a face may see: the engine, the nouns, and of the store its
// contract, whose words the engine speaks; never a store.
var apiImports = []string{"internal/job", "internal/store", "internal/engine", "internal/watch", "internal/files", "internal/conversation"}

// forbiddenEdge is an edge that the plan forbids, and what it would let happen. A path that
// ends in /… stands for all under it.
type forbiddenEdge struct{ from, to, accident string }

var forbidden = []forbiddenEdge{
	{"client", "internal/…", "every user of the SDK would drag the server along, and the server could no longer change"},
	{"internal/job", "internal/…", "the nouns would depend on a room that needs them, and every room would be built with every other"},
	{"internal/store/…", "internal/engine", "a rule would settle in one store, and the next would have others"},
	{"internal/store/storetest", "internal/fairqueue", "the suite would judge a store by the very rules that it is to check"},
	{"internal/fairqueue", "internal/store", "the rules would read a disk or a clock, and could not be the same for every store"},
	{"internal/fairqueue", "internal/store/…", "the rules would be those of one store"},
	{"internal/store/…", "internal/store/sqlite", "a store that leans on another cannot replace it"},
	{"internal/store/…", "internal/conversation", "a store would learn what a chat is; to a store side rows are bytes"},
	{"internal/engine", "internal/store/…", "the engine would work with one store only"},
	{"internal/engine", "internal/exec", "the engine would wait for work; only a runner does"},
	{"internal/engine", "internal/conversation", "the commit loop would change with every face; whoever boots hands it a function"},
	{"internal/engine", "internal/api/…", "the rules would depend on one transport"},
	{"internal/runner", "internal/engine", "a runner could only live inside the server, and no worker elsewhere could share it"},
	{"internal/exec/…", "internal/engine", "an executor could finish a job around its runner, without the lease"},
	{"internal/exec/…", "internal/store", "an executor could write output that no lease guards"},
	{"internal/api/…", "internal/store/…", "a face could write around the commit loop, and show what is not on disk"},
	{"internal/api/…", "internal/exec", "a request would do the slow work itself, in the caller's time"},
	{"internal/api", "internal/api/…", "the base would change with each API that stands on it"},
	{"internal/api/gate", "internal/api/stream", "a request would be answered before it is known whose it is"},
	{"internal/api/gate", "internal/api/…", "the gate would know one API's routes, and a new API would be let in by another's rules"},
	{"internal/api/gate", "internal/engine", "whoever may come in would depend on what is stored, and every request would wait for a read"},
	{"internal/api/stream", "internal/api/…", "a stream would be of one API, and the next would write its own"},
	{"internal/api/stream", "internal/engine", "following a job could change it, and leaving would be cancelling"},
	{"internal/api/jobs", "internal/api/chat", "two faces that share code by reaching into each other change together"},
	{"internal/api/chat", "internal/api/jobs", "two faces that share code by reaching into each other change together"},
	{"internal/simmodel", "internal/…", "the pretended model would no longer be a stranger on the other end of a wire, as a real one is"},
	{"internal/crash", "internal/…", "the harness would judge the server by the server's own code"},
	{"bench", "internal/…", "a bench that reaches inside measures what no user gets"},
}
