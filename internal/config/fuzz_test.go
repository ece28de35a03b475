package config

import (
	"os"
	"testing"
)

// A file is either refused with a problem, or gives a configuration that passes the
// checks a second time.
func FuzzFile(f *testing.F) {
	text, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("queues: {a: {executor: sim, timeouts: {lease_s: 1e9}}}"))
	f.Add([]byte("? {a: b}\n: &x [*x]\n--- 1"))
	f.Add([]byte("models: [null, {name: ~}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > MaxFile {
			return
		}
		cfg := Default()
		l := loader{env: map[string]string{"OPENAI_API_KEY": "k"}, where: map[string]string{}}
		l.yaml(&cfg, "m.yaml", text)
		if len(l.problems) > 0 {
			return
		}
		l.check(&cfg)
		first := len(l.problems)
		l.problems = nil // a problem hides the next one of the same key
		l.check(&cfg)
		if len(l.problems) != first {
			t.Errorf("checked twice, %d and %d problems", first, len(l.problems))
		}
		for name, q := range cfg.Queues {
			if first == 0 && (!validQueueName(name) || q.Concurrency < 1 || q.MaxDepth < 1 || q.Timeouts.Lease <= 0) {
				t.Errorf("accepted the queue %q: %+v", name, q)
			}
		}
	})
}
