package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/postgres"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// EncryptionStatus is what a store says about its encryption.
type EncryptionStatus struct {
	// Keys are those that may have sealed values in the store, with the time at which a server said
	// last that it seals with them.
	Keys map[string]time.Time
	// Pass is the last pass that has sealed values again; nil if there was none.
	Pass *EncryptionPass
}

// EncryptionPass is how far a pass is that seals all values with one key.
type EncryptionPass struct {
	To            string // the id of the key; "" for no encryption
	Values, Bytes int64  // sealed again so far
	Began, Ended  time.Time
}

// ReadEncryption reads the status of the data directory or the database of a configuration. It needs
// no key. A server may be using it.
func ReadEncryption(ctx context.Context, cfg config.Config) (status EncryptionStatus, err error) {
	if cfg.Database == "" {
		if err := checkData(cfg.Data); err != nil {
			return status, err
		}
		err = status.read(func(of store.RowSet) ([]store.Row, error) { return sqlite.SideRows(databaseIn(cfg.Data), of) })
		return status, err
	}
	err = withDatabase(ctx, cfg, func(db postgres.Beginner) error {
		return status.read(func(of store.RowSet) ([]store.Row, error) { return postgres.SideRows(ctx, db, of) })
	})
	return status, databaseError(cfg, err)
}

func (s *EncryptionStatus) read(rows func(store.RowSet) ([]store.Row, error)) error {
	list, err := rows(encryptionRows)
	if err != nil {
		return err
	}
	s.Keys = map[string]time.Time{}
	for _, r := range list {
		var use keyUse
		if err := json.Unmarshal(r.Body, &use); err != nil {
			return fmt.Errorf("a row of the encryption's keys is damaged: %w", err)
		}
		if r.ID != (sealed.KeyID{}).String() {
			s.Keys[r.ID] = use.At
		}
	}
	if list, err = rows(passRow); err != nil || len(list) == 0 {
		return err
	}
	var p pass
	if err := json.Unmarshal(list[0].Body, &p); err != nil {
		return fmt.Errorf("the row of the encryption's pass is damaged: %w", err)
	}
	s.Pass = &EncryptionPass{To: p.To, Values: p.Done.Values, Bytes: p.Done.Bytes, Began: p.Began, Ended: p.Ended}
	if p.To == (sealed.KeyID{}).String() {
		s.Pass.To = ""
	}
	return nil
}
