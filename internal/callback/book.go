// Package callback tells receivers when jobs end. A submit may name a URL, and a tenant may have
// endpoints, which receive the ends of all its jobs. A job keeps its receivers as references
// from its submit on. The transaction that ends the job stores a delivery for each of them: a
// job of the queue callbacks, with the body that is sent. So there is no end without its
// deliveries, and no delivery without its end.
//
// Endpoints and their secrets are side rows. Each process keeps all of them in memory, in a
// [Book], because every submit needs them. It looks for changes by other processes every two
// seconds, and before it believes that an endpoint does not exist.
//
// Package webhook has what is sent, and sends it.
package callback

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/webhook"
)

// Config configures a [Book].
type Config struct {
	Rows  store.RowReader
	Write func(ctx context.Context, rows ...store.Row) error // see [engine.Engine.Write]
	// CheckURL refuses a URL to which nothing is sent. It reads neither the network nor a disk.
	CheckURL  func(url string) error
	PublicURL string // of the server, or ""; see [AtEnd]
	// Send makes one request to a receiver; see [webhook.Executor.Send].
	Send func(ctx context.Context, t webhook.Target, id string, body []byte) webhook.Outcome
	// DisableAfter is how long an endpoint may fail before it is disabled; 0 for five days.
	DisableAfter time.Duration
	Log          *slog.Logger
}

// reloadInterval is how often a process looks for changes by others.
const reloadInterval = 2 * time.Second

// Book has the endpoints of all tenants in memory, and changes them. Its methods may be called
// by many goroutines.
type Book struct {
	// set once
	config  Config
	reports chan report // never closed

	loading sync.Mutex // is held during a load

	mu sync.RWMutex
	// guarded by mu
	tenants map[string]*endpoints // by tenant; replaced by a new map at each change
	began   time.Time             // of the last complete load
	pending map[string]bool       // endpoints with a report on its way
}

// endpoints has the endpoints of a tenant at one version. It is never changed.
type endpoints struct {
	version    int64
	byID       map[string]*Endpoint
	subscribed []string // the references of its jobs to the endpoints that are enabled
}

func newEndpoints(version int64, byID map[string]*Endpoint) *endpoints {
	t := &endpoints{version: version, byID: byID}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		if e := byID[id]; id != DefaultID && e.Disabled.IsZero() {
			t.subscribed = append(t.subscribed, reference{events: e.Events, endpoint: id}.String())
		}
	}
	return t
}

// noEndpoints are those of a tenant that never had one.
var noEndpoints = &endpoints{}

// NewBook makes a book. It is empty until the first load.
func NewBook(c Config) *Book {
	if c.DisableAfter == 0 {
		c.DisableAfter = 5 * 24 * time.Hour
	}
	return &Book{config: c, reports: make(chan report, maxReports), tenants: map[string]*endpoints{}, pending: map[string]bool{}}
}

// Run follows the changes of other processes, and stores what attempts tell about endpoints,
// until ctx ends.
func (b *Book) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-b.reports:
			b.apply(ctx, r)
			continue
		case <-timer.C:
		}
		err := b.Load(ctx)
		if failed := err != nil; failed != failing && ctx.Err() == nil {
			failing = failed
			if failed {
				b.config.Log.Error("the webhook endpoints cannot be read: those of before stay", "error", err)
			}
		}
		timer.Reset(reloadInterval + rand.N(reloadInterval/8))
	}
}

// Load reads the endpoints of all tenants that have changed.
func (b *Book) Load(ctx context.Context) error { return b.loadSince(ctx, time.Now()) }

// loadSince loads the endpoints, unless a load has begun since that time. So many goroutines
// that miss an endpoint cause one load.
func (b *Book) loadSince(ctx context.Context, asked time.Time) error {
	b.loading.Lock()
	defer b.loading.Unlock()
	b.mu.RLock()
	known, began := b.tenants, b.began
	b.mu.RUnlock()
	if began.After(asked) {
		return nil
	}
	began = time.Now()
	versions, err := readVersions(ctx, b.config.Rows)
	if err != nil {
		return err
	}
	tenants := make(map[string]*endpoints, len(versions))
	for name, version := range versions {
		// A write of this process may be newer than the read.
		if t := known[name]; t != nil && t.version >= version {
			tenants[name] = t
			continue
		}
		if tenants[name], err = b.readTenant(ctx, name, version); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, t := range b.tenants {
		if read := tenants[name]; read == nil || read.version < t.version {
			tenants[name] = t
		}
	}
	b.tenants, b.began = tenants, began
	return nil
}

// readTenant reads the endpoints of a tenant. They may be newer than the version, never older.
func (b *Book) readTenant(ctx context.Context, name string, version int64) (*endpoints, error) {
	byID := map[string]*Endpoint{}
	rows, err := readAll(ctx, b.config.Rows, endpointRows(name))
	for i := range rows {
		e, err := parseEndpoint(&rows[i])
		if err != nil {
			b.config.Log.Error("a webhook endpoint is damaged and left out", "endpoint", rows[i].ID, "error", err)
			continue
		}
		byID[e.ID] = e
	}
	return newEndpoints(version, byID), err
}

// set sets the endpoints of a tenant, unless newer ones are known.
func (b *Book) set(name string, t *endpoints) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.tenants[name]; known == nil || known.version < t.version {
		b.tenants = maps.Clone(b.tenants) // a load may be reading it
		b.tenants[name] = t
	}
}

// tenant returns the endpoints of a tenant.
func (b *Book) tenant(name string) *endpoints {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if t := b.tenants[name]; t != nil {
		return t
	}
	return noEndpoints
}

// find returns an endpoint. Before it says that there is none, it looks for one that another
// process has just made.
func (b *Book) find(ctx context.Context, tenant, id string) (*Endpoint, error) {
	asked := time.Now()
	if e := b.tenant(tenant).byID[id]; e != nil {
		return e, nil
	}
	if err := b.loadSince(ctx, asked); err != nil {
		return nil, err
	}
	if e := b.tenant(tenant).byID[id]; e != nil {
		return e, nil
	}
	return nil, unknownEndpoint(id)
}

func unknownEndpoint(id string) error {
	return job.Errorf(job.NotFound, "there is no webhook endpoint %s", job.Quote(id))
}

// Get returns an endpoint of a tenant, or [job.NotFound].
func (b *Book) Get(ctx context.Context, tenant, id string) (Endpoint, error) {
	e, err := b.find(ctx, tenant, id)
	if err != nil {
		return Endpoint{}, err
	}
	return *e, nil
}

// List returns the endpoints of a tenant, newest first, without the default secret.
func (b *Book) List(ctx context.Context, tenant string) ([]Endpoint, error) {
	if err := b.Load(ctx); err != nil {
		return nil, err
	}
	list := []Endpoint{}
	for id, e := range b.tenant(tenant).byID {
		if id != DefaultID {
			list = append(list, *e)
		}
	}
	newestFirst(list)
	return list, nil
}

// Stats counts the endpoints of all tenants.
type Stats struct{ Enabled, Failing, Disabled int }

// Stats counts the endpoints of all tenants. A failing endpoint is enabled too.
func (b *Book) Stats() (s Stats) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, t := range b.tenants {
		for id, e := range t.byID {
			switch {
			case id == DefaultID:
			case !e.Disabled.IsZero():
				s.Disabled++
			default:
				s.Enabled++
				if !e.FailingSince.IsZero() {
					s.Failing++
				}
			}
		}
	}
	return s
}
