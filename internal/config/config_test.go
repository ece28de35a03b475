package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// load writes a file and loads it.
func load(t *testing.T, yaml string, env ...string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(Sources{File: file, Environ: env})
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""))
	}
	return cfg, err
}

func mustLoad(t *testing.T, yaml string, env ...string) Config {
	t.Helper()
	cfg, err := load(t, yaml, env...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestLoadWithoutSourcesReturnsDefault(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]Sources{"no file": {}, "other variables": {Environ: []string{"MEANWHILE_SERVICE_HOST=10.0.0.1"}}} {
		if cfg, err := Load(src); err != nil || !reflect.DeepEqual(cfg, Default()) {
			t.Errorf("%s: %+v, %v", name, cfg, err)
		}
	}
	for _, empty := range []string{"", "# nothing\n", "queues:\nmodels:\n", "{}"} {
		if cfg := mustLoad(t, empty); !reflect.DeepEqual(cfg, Default()) {
			t.Errorf("%q is not the default: %+v", empty, cfg)
		}
	}
}

func TestFileChangesTheKeysItHas(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, `
listen: 127.0.0.1:0
shutdown_grace_s: 0.5
models: [{name: m, base_url: "http://127.0.0.1:1/v1", api_key_env: KEY}]
queues:
  chat: {concurrency: 3}
  ocr: {executor: process, command: [tesseract, -, 5], env: [PATH]}
  sim: {executor: llm, timeouts: {idle_output_s: 0, abandon_s: 120}, max_running: 1, max_bytes: 5000000000, per_key: {running: 2}}
  long: {executor: llm, timeouts: {first_output_s: 400}}
  short: {executor: llm, timeouts: {first_output_s: 400, request_s: 5}}
`, "KEY=secret")
	if cfg.Listen != "127.0.0.1:0" || cfg.ShutdownGrace != 500*time.Millisecond || cfg.Models[0].APIKey != "secret" {
		t.Errorf("%+v", cfg)
	}
	if chat := cfg.Queues["chat"]; chat.Concurrency != 3 || chat.MaxDepth != 1000 || chat.Retry.For != 2*time.Minute {
		t.Errorf("a built-in queue keeps the keys that are not in the file: %+v", chat)
	}
	if ocr := cfg.Queues["ocr"]; ocr.Process.Command[2] != "5" || ocr.MaxDepth != 10_000 || ocr.Timeouts.RunHard != 0 {
		t.Errorf("a new queue begins with its executor's defaults: %+v", ocr)
	}
	if sim := cfg.Queues["sim"]; sim.MaxRunning != 1 || sim.MaxBytes != 5_000_000_000 || sim.PerKey != (PerKey{Running: 2, Waiting: 1000}) || sim.Timeouts.Abandon != 2*time.Minute {
		t.Errorf("the limits of a queue: %+v", sim)
	}
	if long := cfg.Queues["long"].Timeouts; long.Request != 400*time.Second || cfg.Queues["short"].Timeouts.Request != 5*time.Second {
		t.Errorf("a request clock that is not set is as long as the first output: %v", long)
	}
	if sim := cfg.Queues["sim"]; sim.Concurrency != 32 || sim.Timeouts.IdleOutput != 0 || sim.Timeouts.FirstOutput != 300*time.Second {
		t.Errorf("a queue that changes its executor begins anew: %+v", sim)
	}
}

func TestModelHasHeadersAndQueryFromVariables(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, `
models:
  - name: m
    upstream: other
    base_url: http://127.0.0.1:1?api-version=1
    query: {key: "${KEY}"}
    headers: {api-key: "${KEY}", Authorization: "Token ${OTHER}", X-Plain: $5}
`, "KEY=secret", "OTHER=second")
	m := cfg.Models[0]
	if m.Upstream != "other" || m.Query["key"] != "secret" || m.Headers["api-key"] != "secret" || m.Headers["Authorization"] != "Token second" || m.Headers["X-Plain"] != "$5" {
		t.Errorf("%+v", m)
	}
	for _, secret := range []string{"secret", "second"} {
		if !slices.Contains(m.Secrets, secret) {
			t.Errorf("%s is not among the secrets", secret)
		}
	}
}

func TestFlagsOverrideVariablesOverrideFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:1\ndata: file\nlog: {level: warn}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(Sources{
		Environ: []string{"MEANWHILE_CONFIG=" + file, "MEANWHILE_LISTEN=127.0.0.1:2", "MEANWHILE_DATA=variable", "MEANWHILE_RETENTION_FAILED_S=60"},
		Flags:   map[string]string{"listen": "0.0.0.0:3", "insecure": "true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "0.0.0.0:3" || cfg.Data != "variable" || cfg.Log.Level != "warn" || cfg.Retention.Failed != time.Minute {
		t.Errorf("%+v", cfg)
	}
}

func TestProblemHasPlaceKeyAndAdvice(t *testing.T) {
	t.Parallel()
	executors := strings.Join(executorNames(), ", ")
	for _, c := range []struct{ yaml, want string }{
		{"listen: 8080", `m.yaml:1: listen: this must be host:port, such as 127.0.0.1:8080, not "8080"`},
		{"listen: 127.0.0.1:99999", `m.yaml:1: listen: this must be host:port`},
		{"listen: [127.0.0.1]", `m.yaml:1: listen: this must be a text`},
		{"\nlisten: a\ndata: b\nlisten: c", `m.yaml:4: "listen": this key is here twice`},
		{"data: ''", `m.yaml:1: data: this must name a directory`},
		{"lisen: x", `m.yaml:1: "lisen": there is no such key; those here are listen, insecure, public_url,`},
		{"log: {level: loud}", `m.yaml:1: log.level: this must be one of debug, info, warn, error, not "loud"`},
		{"log: text", `m.yaml:1: log: this must be keys with values`},
		{"insecure: maybe", `m.yaml:1: insecure: this must be true or false, not "maybe"`},
		{"shutdown_grace_s: 25s", `m.yaml:1: shutdown_grace_s: this must be a number of seconds`},
		{"shutdown_grace_s: -1", `this must be a number of seconds`},
		{"shutdown_grace_s: .nan", `this must be a number of seconds`},
		{"shutdown_grace_s: 1e300", `this must be a number of seconds, 0 to 31622400`},
		{"queues:\n  chat:\n    concurrency: 0", `m.yaml:3: queues.chat.concurrency: this must be 1 to 100000, not 0`},
		{"queues: {chat: {concurrency: 1.5}}", `queues.chat.concurrency: this must be a whole number, not "1.5"`},
		{"queues: {chat: {max_running: -1}}", `queues.chat.max_running: this must be 0 to 100000, not -1`},
		{"queues: {chat: {max_bytes: -1}}", `queues.chat.max_bytes: this must not be negative`},
		{"queues: {chat: {max_bytes: 1GiB}}", `queues.chat.max_bytes: this must be a whole number, not "1GiB"`},
		{"queues: {chat: {per_key: 5}}", `queues.chat.per_key: this must be keys with values: running, waiting`},
		{"queues: {chat: {per_key: {running: -1}}}", `queues.chat.per_key.running: this must be 0 to 100000, not -1`},
		{"queues: {chat: {per_key: {waiting: -1}}}", `queues.chat.per_key.waiting: this must be 0 to 100000000, not -1`},
		{"queues: {chat: {timeouts: {abandon_s: 119}}}", `queues.chat.timeouts.abandon_s: this must be 120 to 31622400 seconds, or 0`},
		{"queues: {chat: {max_attempts: 101}}", `queues.chat.max_attempts: this must be 1 to 100, not 101`},
		{"queues: {chat: {timeouts: {lease_s: 0}}}", `queues.chat.timeouts.lease_s: this must be 1 to 3600 seconds`},
		{"queues: {chat: {timeouts: {run_soft_s: 20, run_hard_s: 10}}}", `queues.chat.timeouts.run_soft_s: this is 20s, and must not be longer than run_hard_s, which is 10s`},
		{"queues: {chat: {retry: {backoff_s: 61}}}", `queues.chat.retry.backoff_s: this is 1m1s, and must not be longer than backoff_max_s, which is 1m0s`},
		{"queues: {chat: {retry: {after_output: stop}}}", `queues.chat.retry.after_output: this must be one of restart, fail, not "stop"`},
		{"queues: {chat: {command: [a]}}", `queues.chat.command: only a queue with the executor process has the key command`},
		{"queues: {chat: {model: x}}", `queues.chat.model: there is no model "x" under models`},
		{"queues: {sim: {model: x}}", `queues.sim.model: only a queue with the executor llm has the key model`},
		{"queues: {new: {}}", `m.yaml:1: queues.new: a new queue needs an executor: one of ` + executors},
		{"queues: {new: {executor: pigeon}}", `queues.new.executor: this must be one of ` + executors + `, not "pigeon"`},
		{"queues: {chat: {executor: sim}}", `queues.chat.executor: this must be llm: the queue chat answers /api/chat`},
		{"queues: {p: {executor: process}}", `m.yaml:1: queues.p.command: a process queue needs a command`},
		{"queues: {p: {executor: process, command: a b}}", `queues.p.command: this must be a list, such as [one, another]`},
		{"queues: {p: {executor: process, command: ['{file}', x]}}", `queues.p.command[0]: this is the program to run`},
		{"queues: {p: {executor: process, command: [a, '--in={files}']}}", `queues.p.command[1]: {files} stands for several arguments`},
		{"files: {max_bytes: 0}", `m.yaml:1: files.max_bytes: this must be 1 to 1099511627776, not 0`},
		{"queues: {p: {executor: process, command: [a], env: [A=b]}}", `queues.p.env[0]: this must be the name of a variable`},
		{"queues: {'a b': {executor: sim}}", `queues."a b": a queue's name is 1 to 64 of a-z, 0-9, _ and -`},
		{"models: [{name: m, base_url: 'http://a/v1', stream: perhaps}]", `models[0].stream: this must be true or false`},
		{"models: [{base_url: 'http://a/v1'}]", `m.yaml:1: models[0].name: a model needs a name`},
		{"models: [{name: m, base_url: a/v1}]", `models[0].base_url: this must be the URL of an OpenAI-compatible server`},
		{"models: [{name: m, base_url: 'http://a'}, {name: m, base_url: 'http://b'}]", `models[1].name: there are two models "m"`},
		{"models: [{name: m, base_url: 'http://a', api_key_env: K}]", `models[0].api_key_env: the variable "K" is not set`},
		{"a: &x 1\ndata: *x", `m.yaml:2: data: anchors and aliases are not supported`},
		{"listen: [", `m.yaml:1: this is not YAML: did not find`},
		{"queues:\n  chat:\n    concurrency: 4\n   max_depth: 3\n\nlog:\n  level: info", `m.yaml:4: this is not YAML: did not find expected key`},
		{"queues:\n\tchat:\n\t\tconcurrency: 4", `m.yaml:2: this is not YAML: a line is indented with spaces, not with tabs`},
		{"data: here\nlisten: \"127.0.0.1:1\nlog: {level: info}", `m.yaml:2: this is not YAML:`},
		{"allowed_origins: [\n'http://a.example',\n'http://b.example'\ndata: x", `m.yaml:1: this is not YAML:`},
		{"#" + strings.Repeat("x", maxSearched) + "\nlisten: [", `m.yaml: this is not YAML: line 2:`},
		{"queues: {p: {executor: process, command: [cat, {file}]}}", `queues.p.command[1]: this must be a text; what has braces stands in quotes, such as "{file}"`},
		{"queues:\n  p: {executor: process, command: [a], env: {PATH: /bin}}", `queues.p.env: this must be a list`},
		{"queues: [chat]", `queues: this must be the names of queues`},
		{"models: {m: {base_url: 'http://a'}}", `models: this must be a list, with a dash before each`},
		{"models: [{name: m, base_url: 'http://u:p@a/v1'}]", `models[0].base_url: this must be without a user and a fragment`},
		{"models: [{name: m, base_url: 'http://a:70000'}]", `models[0].base_url: the port must be 1 to 65535, not 70000`},
		{"models: [{name: m, base_url: 'http://::1/v1'}]", `models[0].base_url: this must be the URL of an OpenAI-compatible server`},
		{"models: [{name: m, base_url: 'http://a?b=%zz'}]", `models[0].base_url: the query of this URL cannot be read`},
		{"models: [{name: m, base_url: 'http://a', headers: {api-key: '${K}'}}]", `models[0].headers.api-key: the variable "K" is not set`},
		{"models: [{name: m, base_url: 'http://a', headers: {Host: b}}]", `models[0].headers.Host: this header belongs to the connection`},
		{"models: [{name: m, base_url: 'http://a', headers: {'a b': c}}]", `models[0].headers."a b": this is not the name of a header`},
		{"models: [{name: m, base_url: 'http://a', headers: {a: 1, A: 2}}]", `models[0].headers.a: this header is there twice`},
		{"models: [{name: m, base_url: 'http://a', headers: [a]}]", `models[0].headers: this must be names with texts`},
		{"models: [{name: m, base_url: 'http://a', query: {k: '${}'}}]", `models[0].query.k: the variable "" is not set`},
		{"data: a\n---\ndata: b", `m.yaml: the file must hold one YAML document`},
		{"just words", `m.yaml:1: this must be keys with values`},
	} {
		_, err := load(t, c.yaml)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n got %v\nwant %s", c.yaml, err, c.want)
		}
	}
}

func TestProblemNamesVariableOrFlag(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		src  Sources
		want string
	}{
		{Sources{Environ: []string{"MEANWHILE_LISTEN=x"}}, "MEANWHILE_LISTEN: listen: this must be host:port"},
		{Sources{Environ: []string{"MEANWHILE_SHUTDOWN_GRACE_S=soon"}}, "MEANWHILE_SHUTDOWN_GRACE_S: shutdown_grace_s: this must be a number of seconds"},
		{Sources{Flags: map[string]string{"log-level": "loud"}}, "--log-level: log.level: this must be one of"},
		{Sources{File: "/nowhere/m.yaml"}, "/nowhere/m.yaml: cannot read the configuration file: no such file"},
	} {
		if _, err := Load(c.src); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v:\n got %v\nwant %s", c.src, err, c.want)
		}
	}
}

func TestLoadReportsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := load(t, "lisen: x\nqueues: {chat: {concurrency: many, depth: 3}}\n")
	if got := strings.Count(err.Error(), "m.yaml:"); got != 3 {
		t.Errorf("%d problems, want 3:\n%v", got, err)
	}
}

// Keys that depend on each other are checked also when another key is wrong, and no
// problem is reported twice.
func TestLoadChecksKeysBesideSyntaxProblems(t *testing.T) {
	t.Parallel()
	_, err := load(t, `
lisen: x
models: {m: {base_url: 'http://a'}}
queues:
  chat: {concurrency: 0, max_dept: 4, model: m}
  p: {executor: process, command: a b}
  q: {executor: process, command: [a, {file}]}
`)
	for _, want := range []string{":2: ", ":3: models: ", ":5: queues.chat.\"max_dept\"", ":5: queues.chat.concurrency", ":6: queues.p.command", ":7: queues.q.command[1]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported:\n%v", want, err)
		}
	}
	if got := strings.Count(err.Error(), "m.yaml:"); got != 6 {
		t.Errorf("%d problems, want 6:\n%v", got, err)
	}
}

func TestShorterHardLimitLowersDefaultSoftLimit(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, "queues: {chat: {timeouts: {run_hard_s: 10}}}")
	if got := cfg.Queues["chat"].Timeouts; got.RunHard != 10*time.Second || got.RunSoft != got.RunHard {
		t.Errorf("%+v", got)
	}
}

func TestLoadRefusesTooLongFile(t *testing.T) {
	t.Parallel()
	_, err := load(t, "#"+strings.Repeat("x", MaxFile))
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "localhost:1": true, "[::1]:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "192.168.0.1:1": false, "example.org:1": false, "127.0.0.1": false,
	} {
		if Loopback(listen) != want {
			t.Errorf("Loopback(%q) = %v", listen, !want)
		}
	}
}

// A key without a default is nil where the file does not have it.
func TestModelFormIsOptional(t *testing.T) {
	t.Parallel()
	var cfg Config
	l := loader{where: map[string]string{}}
	l.yaml(&cfg, "m.yaml", []byte("models: [{name: a, stream: false}, {name: b, stream_options: true}, {name: c, stream: ~}]"))
	if len(cfg.Models) != 3 || *cfg.Models[0].Stream || cfg.Models[0].StreamOptions != nil || !*cfg.Models[1].StreamOptions || cfg.Models[2].Stream != nil {
		t.Errorf("the models are %+v, problems: %v", cfg.Models, l.problems)
	}
}
