package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func (a *applier) due(op *store.Due) error {
	op.Err, op.Ready, op.Expired, op.More = nil, 0, nil, false
	expired, err := a.expire(op)
	if err != nil {
		return err
	}
	// Parked jobs were ready before those that become ready now.
	followed, err := a.unparkFreedKeys()
	if err != nil {
		return err
	}
	unparked, err := a.unparkChangedLimits(op.Limit)
	if err != nil {
		return err
	}
	ready, late, err := a.makeReady(op.Limit)
	op.Ready = followed + unparked + ready
	op.More = expired == op.Limit || unparked == op.Limit || late == op.Limit
	return err
}

// expire ends waiting jobs past their queue time, and returns how many it read.
func (a *applier) expire(op *store.Due) (int, error) {
	jobs, err := a.tx.Expired(op.Limit)
	for _, j := range jobs {
		if err != nil {
			break
		}
		if j.Damaged {
			err = a.repair(j)
			continue
		}
		from := j.State
		j.Expire(op.Failure, a.now)
		err = a.endWaiting(j, from, op.SkipAtEnd)
		op.Expired = append(op.Expired, j.Job)
	}
	return len(jobs), err
}

// makeReady queues or parks scheduled jobs whose time has come. It returns how many, and how
// many it read.
func (a *applier) makeReady(limit int) (ready, late int, err error) {
	jobs, err := a.tx.Due(limit)
	for _, j := range jobs {
		if err != nil {
			break
		}
		if j.Damaged {
			err = a.repair(j)
			continue
		}
		ready++
		err = a.makeOneReady(j)
	}
	return ready, len(jobs), err
}

func (a *applier) makeOneReady(j *Job) error {
	if a.m.suspects.running > 0 && j.Suspect() {
		return a.parkSuspect(j)
	}
	return a.moveReady(j, a.readyState(&j.Job))
}
