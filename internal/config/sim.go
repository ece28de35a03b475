package config

// Sim is the executor that simulates work. It has no keys of its own.
const Sim = "sim"

func simKind() executorKind {
	return executorKind{name: Sim, defaults: func(q *Queue) { q.Concurrency = 1000 }}
}
