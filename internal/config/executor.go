package config

import (
	"reflect"
)

// executorKind is a kind of executor that a configuration file may name. Each has its own
// Go file with the struct of its keys, their defaults and their checks.
type executorKind struct {
	name     string
	defaults func(q *Queue)
	options  func(q *Queue) any // a pointer to the struct of its keys; nil for none
	check    func(l *loader, q *Queue, key string, cfg *Config)
}

// executorKinds lists the kinds. A new kind needs an entry here and a field in [Queue].
func executorKinds() []executorKind {
	return []executorKind{simKind(), llmKind(), processKind()}
}

func executorNames() []string {
	var names []string
	for _, k := range executorKinds() {
		names = append(names, k.name)
	}
	return names
}

// checkExecutor checks the keys of the queue's executor, and refuses keys of other executors.
func (l *loader) checkExecutor(q *Queue, key string, cfg *Config) {
	for _, k := range executorKinds() {
		if k.name == q.Executor {
			if k.check != nil {
				k.check(l, q, key, cfg)
			}
			continue
		}
		if k.options == nil {
			continue
		}
		options := reflect.ValueOf(k.options(q)).Elem()
		for _, name := range keysOf(options.Type()) {
			field, _ := fieldOf(options, name)
			unset := field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0
			l.must(unset, join(key, name), "only a queue with the executor %s has the key %s", k.name, name)
		}
	}
}
