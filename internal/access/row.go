package access

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ReservedTenant owns the rows of keys and tenants. No tenant can have its name.
const ReservedTenant = "~"

// keyRow is a key as it is stored.
type keyRow struct {
	ID         string     `json:"id"`
	Tenant     string     `json:"tenant,omitempty"`
	Name       string     `json:"name"`
	SHA256     string     `json:"sha256"` // of the secret, in hexadecimal
	Scopes     []string   `json:"scopes"`
	Queues     []string   `json:"queues,omitempty"`
	ActAs      bool       `json:"act_as,omitempty"`
	AllTenants bool       `json:"all_tenants,omitempty"`
	Created    time.Time  `json:"created"`
	Expires    *time.Time `json:"expires,omitempty"`
	Revoked    *time.Time `json:"revoked,omitempty"`
	Replaces   string     `json:"replaces,omitempty"`
}

// EncodeKey returns the body of the key's row.
func EncodeKey(k *Key) []byte {
	return encode(keyRow{
		ID: k.ID, Tenant: k.Tenant, Name: k.Name, SHA256: hex.EncodeToString(k.Hash[:]), Scopes: k.ScopeNames(), Queues: k.Queues,
		ActAs: k.ActAs, AllTenants: k.AllTenants, Created: k.Created, Expires: optional(k.Expires), Revoked: optional(k.Revoked), Replaces: k.Replaces,
	})
}

// DecodeKey reads the body of a key's row. It refuses what it does not know, because an unknown
// field could be a restriction.
func DecodeKey(body []byte) (*Key, error) {
	var row keyRow
	if err := decode(body, &row); err != nil {
		return nil, fmt.Errorf("a stored key cannot be read: %w", err)
	}
	k := &Key{
		ID: row.ID, Tenant: row.Tenant, Name: row.Name, Queues: Sorted(row.Queues), ActAs: row.ActAs, AllTenants: row.AllTenants,
		Created: row.Created, Expires: value(row.Expires), Revoked: value(row.Revoked), Replaces: row.Replaces,
	}
	hash, err := hex.DecodeString(row.SHA256)
	if err != nil || len(hash) != len(k.Hash) || !ValidKeyID(k.ID) {
		return nil, fmt.Errorf("the stored key %s is damaged", k.ID)
	}
	copy(k.Hash[:], hash)
	if k.Scopes, k.Work, err = ParseScopes(row.Scopes); err == nil {
		err = k.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("the stored key %s cannot be read: %w", k.ID, err)
	}
	return k, nil
}

// tenantRow is a tenant as it is stored.
type tenantRow struct {
	ID      string     `json:"id,omitempty"`
	Limits  Limits     `json:"limits"`
	Created time.Time  `json:"created"`
	Deleted *time.Time `json:"deleted,omitempty"`
}

// EncodeTenant returns the body of the tenant's row.
func EncodeTenant(t *Tenant) []byte {
	return encode(tenantRow{ID: t.ID, Limits: t.Limits, Created: t.Created, Deleted: optional(t.Deleted)})
}

// DecodeTenant reads the body of a tenant's row, as strictly as [DecodeKey].
func DecodeTenant(body []byte) (*Tenant, error) {
	var row tenantRow
	if err := decode(body, &row); err != nil {
		return nil, fmt.Errorf("a stored tenant cannot be read: %w", err)
	}
	if !ValidTenant(row.ID) {
		return nil, errors.New("a stored tenant has an invalid name")
	}
	if err := row.Limits.Check(); err != nil {
		return nil, fmt.Errorf("the stored tenant %s cannot be read: %w", TenantName(row.ID), err)
	}
	return &Tenant{ID: row.ID, Limits: row.Limits, Created: row.Created, Deleted: value(row.Deleted)}, nil
}

func encode(row any) []byte {
	body, err := json.Marshal(row)
	if err != nil {
		panic(err) // every field can be encoded; Limits.Check refuses NaN
	}
	return body
}

// decode reads one JSON value strictly: no unknown fields, and nothing behind it.
func decode(body []byte, row any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(row); err != nil {
		return err
	}
	if d.More() {
		return errors.New("the row has more than one value")
	}
	return nil
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func value(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
