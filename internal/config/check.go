package config

import (
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/netguard"
)

const (
	maxRunning = 100_000
	maxWaiting = 100_000_000
	maxFile    = 1 << 40
)

// check checks the whole configuration: bounds, and keys that depend on each other.
func (l *loader) check(cfg *Config) {
	l.checkListen(cfg)
	l.checkWeb(cfg)
	l.must(cfg.Data != "", "data", "this must name a directory")
	l.checkDatabase(cfg)
	l.must(cfg.MinFreeBytes >= 0, "min_free_bytes", "this must be a number of bytes, not %d; 0 keeps nothing free", cfg.MinFreeBytes)
	l.must(cfg.Retention.UserBytes >= 0, "retention.user_bytes", "this must be a number of bytes, not %d; 0 is no bound", cfg.Retention.UserBytes)
	l.must(cfg.Retention.MaxBytes >= 0, "retention.max_bytes", "this must be a number of bytes, not %d; 0 is no bound", cfg.Retention.MaxBytes)
	l.oneOf(cfg.Log.Level, "log.level", "debug", "info", "warn", "error")
	l.oneOf(cfg.Log.Format, "log.format", "auto", "text", "json")
	l.must(cfg.Encryption.KeyFile == "" || len(cfg.Encryption.Keys) == 0, "encryption.keys", "%s names a file of keys too; set one of the two", l.where["encryption.key_file"])
	l.must((cfg.TLS.Cert == "") == (cfg.TLS.Key == ""), "tls.cert", "tls.cert and tls.key belong together: set both, or none for plain HTTP")
	l.checkMetrics(cfg.Metrics)
	l.checkTracing(&cfg.Tracing)
	l.must(cfg.Queues["chat"].Executor == LLM, "queues.chat.executor", "this must be llm: the queue chat answers /api/chat; give another queue this executor")
	l.must(cfg.Files.CacheBytes > 0, "files.cache_bytes", "this must be a number of bytes above 0, not %d", cfg.Files.CacheBytes)
	l.must(0 < cfg.Files.MaxBytes && cfg.Files.MaxBytes <= maxFile, "files.max_bytes", "this must be 1 to %d, not %d", int64(maxFile), cfg.Files.MaxBytes)
	l.between(cfg.Connections.Max, 0, maxRunning, "connections.max")
	l.between(cfg.Connections.PerAddress, 1, maxRunning, "connections.per_address")
	l.checkBodies(cfg)
	l.checkCallbacks(cfg.Callbacks)
	l.checkModels(cfg.Models)
	for _, name := range slices.Sorted(maps.Keys(cfg.Queues)) {
		l.must(name != job.CallbackQueue, "queues."+name, "this is the queue of deliveries, which the server makes itself: give this one another name")
		l.checkQueue(cfg.Queues[name], "queues."+name, cfg)
	}
}

// checkBodies refuses budgets in which one body has no room. A batch needs twice its length.
func (l *loader) checkBodies(cfg *Config) {
	least := int64(2 * job.MaxBatchBody)
	for _, q := range cfg.Queues {
		least = max(least, 2*(q.MaxInput+job.MaxEnvelope))
	}
	b := cfg.Bodies
	l.must(b.CallerBytes >= least, "bodies.caller_bytes", "this must be at least %d, for one batch of jobs with the largest input, not %d", least, b.CallerBytes)
	l.must(b.MaxBytes >= b.CallerBytes, "bodies.max_bytes", "this is %d, and must not be less than caller_bytes, which is %d", b.MaxBytes, b.CallerBytes)
}

// maxCallback is the longest time that a receiver of callbacks may take.
const maxCallback = time.Minute

func (l *loader) checkCallbacks(c Callbacks) {
	_, err := netguard.ParseAllow(c.Allow)
	l.must(err == nil, "callbacks.allow", "%v", err)
	l.must(0 < c.Timeout && c.Timeout <= maxCallback, "callbacks.timeout_s", "this must be above 0 and at most %g seconds, not %g", maxCallback.Seconds(), c.Timeout.Seconds())
	l.between(c.Concurrency, 1, maxRunning, "callbacks.concurrency")
	l.between(c.PerReceiver, 1, maxRunning, "callbacks.per_receiver")
}

func (l *loader) checkListen(cfg *Config) {
	_, port, err := net.SplitHostPort(cfg.Listen)
	n, notNumber := strconv.Atoi(port)
	if err != nil || notNumber != nil || n < 0 || n > 65535 {
		l.fail("listen", "this must be host:port, such as 127.0.0.1:8080, not %s", job.Quote(cfg.Listen))
	}
}

func (l *loader) checkQueue(q Queue, key string, cfg *Config) {
	if !l.oneOf(q.Executor, key+".executor", executorNames()...) {
		return
	}
	l.between(q.Concurrency, 1, maxRunning, key+".concurrency")
	l.between(q.MaxRunning, 0, maxRunning, key+".max_running")
	l.between(q.MaxDepth, 1, maxWaiting, key+".max_depth")
	l.must(q.MaxBytes >= 0, key+".max_bytes", "this must not be negative; 0 is no limit")
	l.between(q.PerKey.Running, 0, maxRunning, key+".per_key.running")
	l.between(q.PerKey.Waiting, 0, maxWaiting, key+".per_key.waiting")
	l.between(q.MaxAttempts, 1, job.MaxAttempts, key+".max_attempts")
	if q.Callback != "" {
		allow, _ := netguard.ParseAllow(cfg.Callbacks.Allow) // checkCallbacks reports the error
		_, err := (&netguard.Guard{Allow: allow, Loopback: Loopback(cfg.Listen)}).CheckURL(q.Callback)
		l.must(err == nil, key+".callback", "nothing would be sent there: %v", err)
	}
	l.checkTimeouts(q.Timeouts, key+".timeouts")
	l.oneOf(string(q.Retry.AfterOutput), key+".retry.after_output", string(job.RestartAfterOutput), string(job.FailAfterOutput))
	l.must(q.Retry.Backoff <= q.Retry.BackoffMax, key+".retry.backoff_s",
		"this is %v, and must not be longer than backoff_max_s, which is %v", q.Retry.Backoff, q.Retry.BackoffMax)
	l.must(0 < q.MaxInput && q.MaxInput <= job.LargestInput, key+".max_input_bytes", "this must be 1 to %d, not %d", job.LargestInput, q.MaxInput)
	l.checkLimits(q, key)
	l.checkExecutor(&q, key, cfg)
}

// checkLimits refuses limits that a submit without wishes of its own would be past.
func (l *loader) checkLimits(q Queue, key string) {
	l.must(0 <= q.Limits.Priority && q.Limits.Priority <= job.DefaultPriority, key+".limits.priority",
		"this must be 0 to %d, the priority of a job that asks for none, not %d", job.DefaultPriority, q.Limits.Priority)
	l.between(q.Limits.MaxAttempts, 0, job.MaxAttempts, key+".limits.max_attempts")
	ceilings := q.Ceilings()
	ceilings.Priority = 0
	err := ceilings.Check(&job.Job{Priority: job.DefaultPriority, MaxAttempts: q.MaxAttempts, Policy: q.Policy()}, 0)
	if e, ok := errors.AsType[*job.Error](err); ok {
		field := strings.ReplaceAll(strings.TrimPrefix(e.Field, "/"), "/", ".")
		if field == "abandon_after_s" {
			field = "timeouts.abandon_s"
		}
		_, value, _ := strings.Cut(e.Message, " is ")
		value, bound, _ := strings.Cut(value, "; ")
		_, bound, _ = strings.Cut(bound, " allows ")
		l.fail(key+"."+field, "this is %s, and the queue's own limits allow %s: a job that asks for nothing must be within them; change this or the limit", value, bound)
	}
}

func (l *loader) checkTimeouts(t job.Timeouts, key string) {
	for i, d := range t.All() {
		c := &job.Clocks[i]
		l.must(c.Allows(*d), join(key, c.Key()), "this must be %s", c.Bounds())
	}
	l.must(t.RunHard == 0 || t.RunSoft <= t.RunHard, key+".run_soft_s", "this is %v, and must not be longer than run_hard_s, which is %v", t.RunSoft, t.RunHard)
}

func (l *loader) between(v, minimum, maximum int, key string) {
	l.must(minimum <= v && v <= maximum, key, "this must be %d to %d, not %d", minimum, maximum, v)
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

// fail reports a problem with a key, at the place that set the key or the nearest key
// around it. A key that could not be read has a problem already and gets no second one.
func (l *loader) fail(key, format string, args ...any) {
	if l.hasProblem(key) {
		return
	}
	around := key
	for around != "" && l.where[around] == "" {
		around = around[:max(strings.LastIndexAny(around, ".["), 0)]
	}
	l.problem(l.where[around], key, format, args...)
}
