package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// The server keeps a side row for each key that may have sealed values in the store. So a start
// without such a key is refused before anybody misses a value. The rows are not sealed.
var encryptionRows = store.RowSet{Owner: store.ServerOwner, Kind: "encryption_key"}

// maxKeyRows is how many of these rows are read: more than a ring has keys.
const maxKeyRows = 1000

// maxKeyFile bounds the file of keys, in bytes.
const maxKeyFile = 64 << 10

// keyUse is the body of the row of a key.
type keyUse struct {
	Since time.Time `json:"since"` // when a server began to seal with it
	At    time.Time `json:"at"`    // when a server said last that it seals with it
}

// readRing returns the keys of a configuration; nil if it has none.
func readRing(c config.Encryption) (*sealed.Ring, error) {
	text, where := strings.Join(c.Keys, "\n"), "encryption.keys"
	switch {
	case c.KeyFile != "":
		f, err := os.Open(c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("the keys of the encryption cannot be read (encryption.key_file): %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
		if err != nil {
			return nil, fmt.Errorf("the keys of the encryption cannot be read (encryption.key_file): %w", err)
		}
		text, where = string(raw), c.KeyFile
	case len(c.Keys) == 0:
		return nil, nil
	}
	ring, err := sealed.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the keys of the encryption in %s: %w", where, err)
	}
	return ring, nil
}

// useKeys refuses a store that has values of a key that the ring lacks, and stores that its current
// key is going to be used. No other goroutine may apply batches.
func useKeys(ctx context.Context, s store.Store, ring *sealed.Ring) error {
	used, err := usedKeys(ctx, s)
	if err != nil {
		return err
	}
	var missing []string
	for id := range used {
		if !ring.Has(id) {
			missing = append(missing, id.String())
		}
	}
	if len(missing) > 0 {
		return job.Errorf(job.EncryptionKeyMissing, "the store has values that are encrypted with the key %s, which the configuration does not have: "+
			"add it to the keys of encryption (encryption.key_file, MEANWHILE_ENCRYPTION_KEYS)", strings.Join(missing, " and the key "))
	}
	current := ring.Current()
	if current == (sealed.KeyID{}) {
		return nil
	}
	now := s.Now()
	use := keyUse{Since: now, At: now}
	if before, known := used[current]; known {
		use.Since = before.Since
	}
	b := store.NewBatch()
	op := &store.Write{Rows: []store.Row{use.row(current)}}
	b.Add(op)
	return errors.Join(store.Commit(ctx, s, b), op.Err)
}

func (u keyUse) row(id sealed.KeyID) store.Row {
	body, err := json.Marshal(u)
	if err != nil {
		panic(err) // times can be encoded
	}
	return store.Row{Owner: encryptionRows.Owner, Kind: encryptionRows.Kind, ID: id.String(), Body: body}
}

// usedKeys returns the keys that may have sealed values in the store.
func usedKeys(ctx context.Context, s store.RowReader) (map[sealed.KeyID]keyUse, error) {
	rows, err := s.Rows(ctx, encryptionRows, store.RowPage{Limit: maxKeyRows})
	if err != nil {
		return nil, err
	}
	used := map[sealed.KeyID]keyUse{}
	for _, r := range rows {
		id, err := sealed.ParseKeyID(r.ID)
		var use keyUse
		if err == nil {
			err = json.Unmarshal(r.Body, &use)
		}
		if err != nil {
			return nil, fmt.Errorf("a row of the encryption's keys is damaged: %w", err)
		}
		used[id] = use
	}
	return used, nil
}
