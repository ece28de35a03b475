package server

import (
	"context"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// purgeInterval is how often a server looks for tenants that are to be deleted.
	purgeInterval = time.Second
	// purgePiece is how many jobs, or rows, one commit of a deletion removes at most.
	purgePiece = 100
	// purgeGrace is how long after the beginning of its deletion a tenant may still get jobs: from a
	// server that has not read of it, and by requests that it has let in before.
	purgeGrace = 15 * time.Second
	// minPurgePause is the shortest pause after a piece. A pause is as long as the piece took, so
	// that a deletion takes half of the commits at most.
	minPurgePause = 5 * time.Millisecond
)

// purger deletes what belongs to the tenants whose deletion has begun. It keeps no state of its
// own: it removes what it finds, and so goes on after a restart. Several servers may do so at the
// same time.
type purger struct {
	c     *components
	grace time.Duration
}

// run deletes tenants until ctx ends.
func (p *purger) run(ctx context.Context) error {
	tick := time.NewTicker(purgeInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, t := range p.c.registry.current.Load().Tenants() {
			if t.Deleted.IsZero() {
				continue
			}
			err := p.purge(ctx, t)
			if err != nil && !failing && ctx.Err() == nil {
				p.c.log.Warn("a tenant cannot be deleted now: it is tried again", "tenant", t.ID, "error", err)
			}
			failing = err != nil
		}
	}
}

// purge removes the jobs of a tenant and its rows, and then the tenant. It returns before that if
// the tenant may still get jobs or has running ones.
func (p *purger) purge(ctx context.Context, t *access.Tenant) error {
	if err := p.inPieces(ctx, func() (int, error) { return p.deleteJobs(ctx, t.ID) }); err != nil {
		return err
	}
	if err := p.inPieces(ctx, func() (int, error) { return p.deleteRows(ctx, t.ID) }); err != nil {
		return err
	}
	// A deleted job that still runs is no longer listed, and may leave rows when it ends.
	if p.c.registry.Now().Sub(t.Deleted) < p.grace {
		return nil
	}
	if running, err := p.hasRunning(ctx, t.ID); running || err != nil {
		return err
	}
	// What came since the deletes above.
	left, err := p.deleteJobs(ctx, t.ID)
	if err == nil && left == 0 {
		left, err = p.deleteRows(ctx, t.ID)
	}
	if left > 0 || err != nil {
		return err
	}
	return p.forget(ctx, t.ID)
}

// inPieces calls remove until it finds nothing more.
func (p *purger) inPieces(ctx context.Context, remove func() (int, error)) error {
	for {
		began := time.Now()
		n, err := remove()
		if n == 0 || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(time.Since(began), minPurgePause)):
		}
	}
}

// deleteJobs deletes some jobs of a tenant and returns how many. Waiting ones count as cancelled,
// and running ones are cancelled.
func (p *purger) deleteJobs(ctx context.Context, tenant string) (int, error) {
	f := job.Filter{Owner: job.WholeTenant(tenant), Limit: purgePiece}
	found, next, err := p.c.engine.List(ctx, f)
	for err == nil && len(found) == 0 && next != (job.ID{}) { // a page may be empty although more follow
		f.After = next
		found, next, err = p.c.engine.List(ctx, f)
	}
	if err != nil {
		return 0, err
	}
	of := map[job.Owner][]job.ID{}
	for i := range found {
		of[found[i].Owner] = append(of[found[i].Owner], found[i].ID)
	}
	for owner, ids := range of {
		if err := p.c.engine.DeleteJobs(ctx, owner, ids); err != nil {
			return 0, err
		}
	}
	return len(found), nil
}

// deleteRows deletes some rows of a tenant and returns how many.
func (p *purger) deleteRows(ctx context.Context, tenant string) (int, error) {
	rows, err := p.c.store.TenantRows(ctx, tenant, purgePiece)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	for i := range rows {
		rows[i].Action = store.Remove
	}
	return len(rows), p.c.engine.Write(ctx, rows...)
}

// hasRunning reports whether a job of a tenant runs, also a deleted one.
func (p *purger) hasRunning(ctx context.Context, tenant string) (bool, error) {
	const page = 500
	for after := (job.ID{}); ; {
		list, err := p.c.store.Running(ctx, store.AllRunning, after, page)
		if err != nil {
			return false, err
		}
		for i := range list {
			if after = list[i].Job.ID; list[i].Job.Owner.Tenant == tenant {
				return true, nil
			}
		}
		if len(list) < page {
			return false, nil
		}
	}
}

// forget removes the keys of a tenant, and then the tenant itself.
func (p *purger) forget(ctx context.Context, tenant string) error {
	for more := true; more; {
		err := p.c.registry.Change(ctx, func(d *access.Directory, _ time.Time) (c access.Change, _ error) {
			c, more = d.ForgetTenant(tenant)
			return c, nil
		})
		if err != nil {
			return err
		}
	}
	p.c.log.Info("the tenant is deleted", "tenant", tenant)
	return nil
}
