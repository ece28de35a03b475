package server

import (
	"log/slog"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

const (
	mostConnections  = 100_000 // where neither the configuration nor the system sets fewer
	leastConnections = 16
	otherDescriptors = 64 // of the store, the log, the listeners and uploads
)

// workDescriptors returns how many file descriptors the running jobs need at most: a command
// has pipes and its start needs more, a call of a model has a connection.
func workDescriptors(queues map[string]config.Queue) int {
	n := otherDescriptors
	for _, q := range queues {
		switch q.Executor {
		case config.Process:
			n += 8 * q.Concurrency
		case config.LLM:
			n += 2 * q.Concurrency
		}
	}
	return n
}

// limitConnections returns the limits of the connections: what the configuration sets, and
// no more than leaves descriptors for work. Work keeps at most half of a low limit.
func limitConnections(cfg config.Config, g *gate.Gate, log *slog.Logger) connectionLimits {
	limits := connectionLimits{all: mostConnections, trusts: g.Trusts}
	if cfg.Connections.Max > 0 {
		limits.all = cfg.Connections.Max
	}
	if files, known := descriptorLimit(); known {
		work := workDescriptors(cfg.Queues)
		if left := max(files-min(work, files/2), leastConnections); left < limits.all {
			if limits.all = left; cfg.Connections.Max > left || work > files/2 {
				log.Warn("the process may open few files, so it takes few connections: raise its limit (ulimit -n, LimitNOFILE)", "files", files, "kept_for_work", min(work, files/2), "wanted_for_work", work, "connections", left)
			}
		}
	}
	limits.perAddress = min(cfg.Connections.PerAddress, max(limits.all/4, 1))
	return limits
}
