package engine

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// SetPaused stops a queue from giving jobs to workers, or lets it go on, and returns
// when that is on disk: a restart does not forget it. What runs goes on, and
// submits are taken as before. [job.UnknownQueue] when there is no such queue.
func (e *Engine) SetPaused(ctx context.Context, queue string, paused bool) (QueueView, error) {
	if _, err := e.Queue(queue); err != nil {
		return QueueView{}, err
	}
	op := &store.Pause{Queue: queue, Paused: paused}
	if err := e.doUrgent(ctx, op); err != nil {
		return QueueView{}, err
	}
	if op.Err != nil {
		return QueueView{}, op.Err
	}
	e.log.Info("a queue was paused or resumed", "queue", queue, "paused", paused)
	view, err := e.queueView(ctx, queue)
	if err != nil {
		// The pause is on disk, so its answer is a success without the oldest job's age.
		return e.queues[queue].view(), nil
	}
	return view, nil
}
