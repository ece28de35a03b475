package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/bus"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	// registryInterval is how often a process looks for changes by others. Together with a read
	// it is well below the 5 seconds within which a revoked key stops everywhere.
	registryInterval = 2 * time.Second
	// registryTimeout bounds the reads of a load, and that of the first one.
	registryTimeout      = 2 * time.Second
	firstRegistryTimeout = 30 * time.Second
	registryPage         = 1000 // rows of one read
	// maxRegistryTries is how often a change is made again because another process was faster.
	maxRegistryTries = 20
	// forgetInterval is how often keys that were dead for long are looked for.
	forgetInterval = 10 * time.Minute
)

// The rows of keys and tenants belong to one owner, which no tenant's name can be.
var registryOwner = job.Owner{Tenant: access.ReservedTenant}

func registrySet(kind string) store.RowSet { return store.RowSet{Owner: registryOwner, Kind: kind} }

// The kinds of rows. The one row of stateRow has the number of the last change as its id: each
// change requires that of the change before it and replaces it, so that of two processes that
// change something at the same time one is refused and decides again.
const (
	keyRow    = "key"
	tenantRow = "tenant"
	stateRow  = "access"
)

// registryState is the body of the state row.
type registryState struct {
	Keys bool `json:"keys"` // a key was ever made
}

// registry has all keys and tenants in memory. It is an [access.Keys].
type registry struct {
	// set once
	rows     registryRows
	write    func(context.Context, ...store.Row) error // all rows or none
	log      *slog.Logger
	member   bus.Member // nil without other processes
	wake     chan struct{}
	interval time.Duration

	current atomic.Pointer[access.Directory]

	changing sync.Mutex // one change at a time; held before mu

	mu sync.Mutex // one load at a time
	// guarded by mu
	unread   map[string]bool // ids of rows that cannot be read, so that each is logged once
	forgotAt time.Time
}

// registryRows are the reads that a registry needs of a store.
type registryRows interface {
	Rows(ctx context.Context, of store.RowSet, page store.RowPage) ([]store.Row, error)
	Now() time.Time
}

// openRegistry loads all keys and tenants. The caller sets write before the first change.
func openRegistry(ctx context.Context, s registryRows, log *slog.Logger) (*registry, error) {
	r := &registry{rows: s, log: log, wake: make(chan struct{}, 1), interval: registryInterval, unread: map[string]bool{}}
	r.current.Store(access.NewDirectory(0, false, nil, nil))
	if err := r.load(ctx, firstRegistryTimeout); err != nil {
		return nil, fmt.Errorf("the keys and tenants cannot be read: %w", err)
	}
	return r, nil
}

// On, Find, Tenant and Now are those of [access.Keys].
func (r *registry) On() bool { return r.current.Load().KeysOn }

func (r *registry) Find(id string) (*access.Key, bool) { return r.current.Load().Key(id) }

func (r *registry) Tenant(id string) *access.Tenant { return r.current.Load().Tenant(id) }

func (r *registry) Now() time.Time { return r.rows.Now() }

// join makes the changes of other processes show at once.
func (r *registry) join(b bus.Bus) {
	if b == nil {
		return
	}
	r.member = b.Join(func(n bus.Notice) {
		if n.Access() {
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
	})
}

// follow loads what other processes have changed, until ctx ends.
func (r *registry) follow(ctx context.Context) error {
	if r.member != nil {
		defer r.member.Leave()
	}
	failing := false
	timer := time.NewTimer(r.pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
			timer.Reset(r.pause())
		}
		_, err := r.Refresh(ctx)
		if err == nil {
			err = r.forget(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			r.log.Error("the keys and tenants cannot be read: those of before stay", "error", err)
		}
		failing = err != nil
	}
}

// pause is random, so that processes do not read at the same moment.
func (r *registry) pause() time.Duration {
	return r.interval*3/4 + rand.N(r.interval/2)
}

// Refresh loads what other processes have changed, and returns all keys and tenants.
func (r *registry) Refresh(ctx context.Context) (*access.Directory, error) {
	if err := r.load(ctx, registryTimeout); err != nil {
		return nil, err
	}
	return r.current.Load(), nil
}

// load reads everything if something has changed.
func (r *registry) load(ctx context.Context, timeout time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	sequence, on, err := r.readState(ctx)
	for err == nil && sequence != r.current.Load().Sequence {
		var d *access.Directory
		if d, err = r.readAll(ctx, sequence, on); err != nil {
			return err
		}
		// A change during the reads would show in part. Then everything is read again.
		before := sequence
		if sequence, on, err = r.readState(ctx); err == nil && sequence == before {
			r.current.Store(d)
		}
	}
	return err
}

// readState reads the number of the last change, and whether keys are on.
func (r *registry) readState(ctx context.Context) (sequence uint64, on bool, err error) {
	rows, err := r.rows.Rows(ctx, registrySet(stateRow), store.RowPage{Desc: true, Limit: 1})
	if err != nil || len(rows) == 0 {
		return 0, false, err
	}
	var state registryState
	if sequence, err = strconv.ParseUint(rows[0].ID, 16, 64); err == nil {
		err = json.Unmarshal(rows[0].Body, &state)
	}
	if err != nil {
		return 0, false, fmt.Errorf("the row that counts their changes is damaged: %w", err)
	}
	return sequence, state.Keys, nil
}

// readAll reads all keys and tenants.
func (r *registry) readAll(ctx context.Context, sequence uint64, on bool) (*access.Directory, error) {
	var keys []*access.Key
	var tenants []*access.Tenant
	err := r.readRows(ctx, keyRow, func(body []byte) error {
		k, err := access.DecodeKey(body)
		if err == nil {
			keys = append(keys, k)
		}
		return err
	})
	if err == nil {
		err = r.readRows(ctx, tenantRow, func(body []byte) error {
			t, err := access.DecodeTenant(body)
			if err == nil {
				tenants = append(tenants, t)
			}
			return err
		})
	}
	return access.NewDirectory(sequence, on, keys, tenants), err
}

// readRows reads all rows of a kind. It logs and leaves out a row that this version of the program
// cannot read: that key is not accepted, and that tenant does not exist.
func (r *registry) readRows(ctx context.Context, kind string, add func(body []byte) error) error {
	for after := ""; ; {
		rows, err := r.rows.Rows(ctx, registrySet(kind), store.RowPage{After: after, Limit: registryPage})
		if err != nil {
			return err
		}
		for i := range rows {
			after = rows[i].ID
			if err := add(rows[i].Body); err != nil && !r.unread[kind+after] {
				r.unread[kind+after] = true
				r.log.Error("what is stored of access is left out: it is damaged, or of a newer version", "kind", kind, "id", after, "error", err)
			}
		}
		if len(rows) < registryPage {
			return nil
		}
	}
}

// Change stores what decide makes of the newest keys and tenants, and shows it in this process. It
// calls decide again if another process was faster. When Change returns, the change is on disk.
func (r *registry) Change(ctx context.Context, decide func(d *access.Directory, now time.Time) (access.Change, error)) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	for range maxRegistryTries {
		if err := r.load(ctx, registryTimeout); err != nil {
			return err
		}
		d := r.current.Load()
		c, err := decide(d, r.rows.Now().UTC().Truncate(time.Millisecond))
		if err != nil || c.Empty() {
			return err
		}
		after := d.Apply(c)
		switch err := r.write(ctx, registryWrite(d, after, c)...); job.CodeOf(err) {
		case "":
			r.show(after)
			if r.member != nil {
				r.member.Publish(bus.AccessNotice())
			}
			return nil
		case job.NotFound, job.Conflict: // another process was faster
		default:
			return err
		}
	}
	return &job.Error{Code: job.Unavailable, Message: "others change keys and tenants all the time: try again", RetryAfter: time.Second}
}

// show makes a directory the current one, unless a load has found a newer one meanwhile.
func (r *registry) show(d *access.Directory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.Load().Sequence < d.Sequence {
		r.current.Store(d)
	}
}

// registryWrite returns the rows of a change. The store refuses them unless before is the newest.
func registryWrite(before, after *access.Directory, c access.Change) []store.Row {
	body, err := json.Marshal(registryState{Keys: after.KeysOn})
	if err != nil {
		panic(err) // it has no value that cannot be encoded
	}
	row := func(kind, id string, action store.Action, body []byte) store.Row {
		return store.Row{Owner: registryOwner, Kind: kind, ID: id, Body: body, Action: action}
	}
	last := registrySequence(before.Sequence)
	rows := []store.Row{row(stateRow, last, store.Require, nil), row(stateRow, last, store.Remove, nil)}
	if before.Sequence == 0 {
		rows = []store.Row{row(stateRow, "", store.RequireNone, nil)}
	}
	rows = append(rows, row(stateRow, registrySequence(after.Sequence), store.Put, body))
	for _, k := range c.Keys {
		rows = append(rows, row(keyRow, k.ID, store.Put, access.EncodeKey(k)))
	}
	for _, t := range c.Tenants {
		rows = append(rows, row(tenantRow, access.TenantName(t.ID), store.Put, access.EncodeTenant(t)))
	}
	for _, id := range c.GoneKeys {
		rows = append(rows, row(keyRow, id, store.Remove, nil))
	}
	for _, id := range c.GoneTenants {
		rows = append(rows, row(tenantRow, access.TenantName(id), store.Remove, nil))
	}
	return rows
}

// registrySequence returns the id of the state row after a number of changes.
func registrySequence(n uint64) string { return fmt.Sprintf("%016x", n) }

// forget removes keys that have been expired or revoked for long.
func (r *registry) forget(ctx context.Context) error {
	now := r.rows.Now()
	r.mu.Lock()
	due := now.Sub(r.forgotAt) >= forgetInterval
	if due {
		r.forgotAt = now
	}
	r.mu.Unlock()
	if c := r.current.Load().Prune(now); !due || c.Empty() {
		return nil
	}
	return r.Change(ctx, func(d *access.Directory, now time.Time) (access.Change, error) { return d.Prune(now), nil })
}
