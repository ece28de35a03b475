package server

import (
	"context"
	"encoding/json"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

const (
	// keyInterval is how often a server says which key it seals with, and looks whether values have to
	// be sealed again. An older statement than keyTimeout is that of a server that is gone.
	keyInterval = 20 * time.Second
	keyTimeout  = time.Minute
	// passInterval is how often the progress of a pass is stored.
	passInterval = 5 * time.Second
	// Between two pieces a pass rests for restFactor times as long as the piece took.
	restFactor = 4
	minRest    = 10 * time.Millisecond
)

var passRow = store.RowSet{Owner: store.ServerOwner, Kind: "encryption_pass"}

// pass is how far a store is in sealing all its values with one key. A server that starts goes on
// with it.
type pass struct {
	To     string          `json:"to"` // the id of the key
	Cursor string          `json:"cursor,omitempty"`
	Done   sealed.Resealed `json:"done"`
	Began  time.Time       `json:"began"`
	Ended  time.Time       `json:"ended,omitzero"`
}

// resealer seals the values of a store again after the current key has changed, so that earlier keys
// are no longer needed.
type resealer struct {
	// set once
	*components
	current sealed.KeyID
	store   sealed.Resealer
}

// reseal runs until ctx ends.
func (c *components) reseal(ctx context.Context) error {
	s, ok := c.store.Store.(sealed.Resealer)
	if c.store.ring == nil || !ok {
		return nil
	}
	r := &resealer{components: c, current: c.store.ring.Current(), store: s}
	tick := time.NewTicker(keyInterval)
	defer tick.Stop()
	for {
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the values of the store cannot be sealed again; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look stores which key this server uses, and seals values again if that is necessary and no other
// server seals with another key.
func (r *resealer) look(ctx context.Context) error {
	used, err := usedKeys(ctx, r.components.store)
	if err != nil || len(used) == 0 { // nothing was ever sealed
		return err
	}
	now := r.components.store.Now()
	use := used[r.current]
	if first := use.Since.IsZero(); first || !r.components.store.exclusive {
		if use.At = now; first {
			use.Since = now
		}
		if err := r.engine.Write(ctx, use.row(r.current)); err != nil {
			return err
		}
	}
	p, err := r.pass(ctx)
	if err != nil {
		return err
	}
	others := false
	for id, use := range used {
		if id == r.current {
			continue
		}
		if others = true; !r.components.store.exclusive && now.Sub(use.At) < keyTimeout {
			return nil // another server may seal with it
		}
	}
	switch {
	case p.To != r.current.String() || others && !p.Ended.IsZero():
		p = pass{To: r.current.String(), Began: now}
		r.log.Info("values with other keys are sealed again", "key", p.To)
	case !p.Ended.IsZero():
		return nil
	}
	return r.run(ctx, p)
}

func (r *resealer) pass(ctx context.Context) (p pass, err error) {
	row, err := r.components.store.Row(ctx, passRow, "1")
	if job.CodeOf(err) == job.NotFound {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(row.Body, &p)
	}
	return p, err
}

func (p pass) row() store.Row {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // it can be encoded
	}
	return store.Row{Owner: passRow.Owner, Kind: passRow.Kind, ID: "1", Body: body}
}

// run goes on with a pass until its end, and then forgets the keys that were last used before it.
func (r *resealer) run(ctx context.Context, p pass) error {
	saved := time.Now()
	for {
		began := time.Now()
		next, done, err := r.store.Reseal(ctx, p.Cursor)
		if err != nil {
			return err
		}
		p.Cursor = next
		p.Done.Values += done.Values
		p.Done.Bytes += done.Bytes
		if next == "" {
			break
		}
		if time.Since(saved) >= passInterval {
			saved = time.Now()
			if err := r.engine.Write(ctx, p.row()); err != nil {
				return err
			}
		}
		rest := time.NewTimer(max(restFactor*time.Since(began), minRest))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
	p.Ended = r.components.store.Now()
	used, err := usedKeys(ctx, r.components.store)
	if err != nil {
		return err
	}
	rows, forgotten := []store.Row{p.row()}, []string{}
	for id, use := range used {
		if id != r.current && use.At.Before(p.Began) {
			row := use.row(id)
			row.Action = store.Remove
			rows, forgotten = append(rows, row), append(forgotten, id.String())
		}
	}
	if err := r.engine.Write(ctx, rows...); err != nil {
		return err
	}
	r.log.Info("all values are sealed with one key", "key", p.To, "values", p.Done.Values, "bytes", p.Done.Bytes, "no_longer_needed", forgotten)
	return nil
}
