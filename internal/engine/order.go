package engine

import "github.com/meanwhile-run/meanwhile/internal/store"

// inStoreOrder sorts ops into the order in which a store applies them: by kind, in the order of
// the fields of [store.Batch], and by arrival within a kind. Callers and watchers get answers
// and events in that order. When a batch is halved, the first half has the earlier ops.
func inStoreOrder(ops []*pendingOp) []*pendingOp {
	var next [kinds]int // index of the next op of each kind
	for _, p := range ops {
		if kind := kindOf(p); kind+1 < kinds {
			next[kind+1]++
		}
	}
	for kind := 1; kind < kinds; kind++ {
		next[kind] += next[kind-1]
	}
	ordered := make([]*pendingOp, len(ops))
	for _, p := range ops {
		kind := kindOf(p)
		ordered[next[kind]] = p
		next[kind]++
	}
	return ordered
}

// kindOf returns the index of an op's kind among the fields of [store.Batch].
func kindOf(p *pendingOp) int {
	if p.submits != nil {
		return kindSubmit
	}
	switch p.op.(type) {
	case *store.Pause:
		return 0
	case *store.Renew:
		return 1
	case *store.Presence:
		return 2
	case *store.Append:
		return 3
	case *store.Finish:
		return 4
	case *store.Cancel:
		return 5
	case *store.Delete:
		return 6
	case *store.Retry:
		return 7
	case *store.Write:
		return 8
	case *store.Due:
		return kindSubmit + 1
	case *store.Prune:
		return kindSubmit + 2
	default: // claims, which the loop itself makes, are answered last
		return kindSubmit + 3
	}
}

const (
	kindSubmit = 9
	kinds      = kindSubmit + 4
)
