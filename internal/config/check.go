package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	mostRunning = 100_000
	mostWaiting = 100_000_000
	mostFile    = 1 << 40
)

// check looks at what was read as a whole: bounds, and what must fit together.
func (l *loader) check(cfg *Config) {
	l.checkListen(cfg)
	l.checkWeb(cfg)
	l.must(cfg.Data != "", "data", "this must name a directory")
	l.must(cfg.MinFreeBytes >= 0, "min_free_bytes", "this must be a number of bytes, not %d; 0 keeps nothing free", cfg.MinFreeBytes)
	l.must(cfg.Retention.MaxBytes >= 0, "retention.max_bytes", "this must be a number of bytes, not %d; 0 is no bound", cfg.Retention.MaxBytes)
	l.oneOf(cfg.Log.Level, "log.level", "debug", "info", "warn", "error")
	l.oneOf(cfg.Log.Format, "log.format", "auto", "text", "json")
	l.checkMetrics(cfg.Metrics)
	l.checkTracing(&cfg.Tracing)
	l.must(cfg.Queues["chat"].Executor == LLM, "queues.chat.executor", "this must be llm: the queue chat answers /api/chat; give another queue this executor")
	l.must(0 < cfg.Files.MaxBytes && cfg.Files.MaxBytes <= mostFile, "files.max_bytes", "this must be 1 to %d, not %d", int64(mostFile), cfg.Files.MaxBytes)
	names := l.checkModels(cfg.Models)
	for _, name := range slices.Sorted(maps.Keys(cfg.Queues)) {
		l.checkQueue(cfg.Queues[name], "queues."+name, names)
	}
}

func (l *loader) checkListen(cfg *Config) {
	_, port, err := net.SplitHostPort(cfg.Listen)
	n, notNumber := strconv.Atoi(port)
	if err != nil || notNumber != nil || n < 0 || n > 65535 {
		l.fail("listen", "this must be host:port, such as 127.0.0.1:8080, not %s", job.Quote(cfg.Listen))
		return
	}
	l.must(cfg.Insecure || Loopback(cfg.Listen), "listen",
		"%s can be reached from other machines, and whoever connects may do anything; listen on 127.0.0.1, or say --insecure (in the file: insecure: true) if something in front keeps strangers out", cfg.Listen)
}

// checkModels also fetches the models' API keys. It returns their names.
func (l *loader) checkModels(models []Model) []string {
	var names []string
	for i := range models {
		m, key := &models[i], fmt.Sprintf("models[%d]", i)
		_, isURL := parseBaseURL(m.BaseURL)
		l.must(m.Name != "", key+".name", "a model needs a name")
		l.must(!slices.Contains(names, m.Name), key+".name", "there are two models %s", job.Quote(m.Name))
		l.must(isURL, key+".base_url",
			"this must be the URL of an OpenAI-compatible server, up to and without /chat/completions, such as http://127.0.0.1:11434/v1")
		l.must(!strings.HasSuffix(strings.TrimRight(m.BaseURL, "/"), "/chat/completions"), key+".base_url",
			"leave /chat/completions out: every call adds it")
		l.between(m.Concurrency, 0, mostRunning, key+".concurrency")
		if m.APIKeyEnv != "" {
			m.APIKey = l.env[m.APIKeyEnv]
			l.must(m.APIKey != "", key+".api_key_env", "the variable %s is not set; it is to hold the model's API key", job.Quote(m.APIKeyEnv))
		}
		names = append(names, m.Name)
	}
	return names
}

func (l *loader) checkQueue(q Queue, key string, models []string) {
	if !l.oneOf(q.Executor, key+".executor", Sim, LLM, Process) {
		return
	}
	l.between(q.Concurrency, 1, mostRunning, key+".concurrency")
	l.between(q.MaxRunning, 0, mostRunning, key+".max_running")
	l.between(q.MaxDepth, 1, mostWaiting, key+".max_depth")
	l.must(q.MaxBytes >= 0, key+".max_bytes", "this must not be negative; 0 is no limit")
	l.between(q.PerKey.Running, 0, mostRunning, key+".per_key.running")
	l.between(q.PerKey.Waiting, 0, mostWaiting, key+".per_key.waiting")
	l.between(q.MaxAttempts, 1, job.MaxAttempts, key+".max_attempts")
	l.checkTimeouts(q.Timeouts, key+".timeouts")
	l.oneOf(string(q.Retry.AfterOutput), key+".retry.after_output", string(job.RestartAfterOutput), string(job.FailAfterOutput))
	l.must(q.Retry.Backoff <= q.Retry.BackoffMax, key+".retry.backoff_s",
		"this is %v, and must not be longer than backoff_max_s, which is %v", q.Retry.Backoff, q.Retry.BackoffMax)
	l.checkProcess(q, key)
	l.checkModel(q, key, models)
}

func (l *loader) checkTimeouts(t job.Timeouts, key string) {
	for i, d := range t.All() {
		c := &job.Clocks[i]
		l.must(c.Allows(*d), join(key, c.Key()), "this must be %s", c.Bounds())
	}
	l.must(t.RunHard == 0 || t.RunSoft <= t.RunHard, key+".run_soft_s", "this is %v, and must not be longer than run_hard_s, which is %v", t.RunSoft, t.RunHard)
}

func (l *loader) checkProcess(q Queue, key string) {
	if q.Executor != Process {
		l.must(len(q.Command) == 0, key+".command", "only a queue with the executor process has a command")
		l.must(len(q.Env) == 0, key+".env", "only a queue with the executor process has an env")
		return
	}
	l.must(len(q.Command) > 0 && q.Command[0] != "", key+".command", "a process queue needs a command: a list, the program first")
	for i, arg := range q.Command {
		at := fmt.Sprintf("%s.command[%d]", key, i)
		l.must(i > 0 || arg != "{file}" && arg != "{files}", at, "this is the program to run; {file} and {files} stand among its arguments")
		l.must(arg == "{files}" || !strings.Contains(arg, "{files}"), at,
			"{files} stands for several arguments, and so is one of its own; the path of a job's one file is {file}")
	}
	for i, name := range q.Env {
		l.must(name != "" && !strings.ContainsAny(name, "=\x00"), fmt.Sprintf("%s.env[%d]", key, i),
			"this must be the name of a variable of the server's own environment, without a value")
	}
}

func (l *loader) checkModel(q Queue, key string, models []string) {
	if q.Model == "" {
		return
	}
	if l.must(q.Executor == LLM, key+".model", "only a queue with the executor llm has a model") {
		l.must(slices.Contains(models, q.Model) || l.told("models"), key+".model", "there is no model %s under models", job.Quote(q.Model))
	}
}

func (l *loader) between(v, least, most int, key string) {
	l.must(least <= v && v <= most, key, "this must be %d to %d, not %d", least, most, v)
}

func (l *loader) oneOf(v, key string, choices ...string) bool {
	return l.must(slices.Contains(choices, v), key, "this must be one of %s, not %s", strings.Join(choices, ", "), job.Quote(v))
}

// must reports a problem with a key unless ok, and returns ok.
func (l *loader) must(ok bool, key, format string, args ...any) bool {
	if !ok {
		l.fail(key, format, args...)
	}
	return ok
}

// fail reports a problem with a key, at the place that set it, or the nearest
// around it. Of what could not even be read enough was told.
func (l *loader) fail(key, format string, args ...any) {
	if l.told(key) {
		return
	}
	around := key
	for around != "" && l.where[around] == "" {
		around = around[:max(strings.LastIndexAny(around, ".["), 0)]
	}
	l.problem(l.where[around], key, format, args...)
}
