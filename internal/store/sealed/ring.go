package sealed

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

// maxKeys bounds a ring.
const maxKeys = 32

// clearWord stands in a ring of keys in the place of the first one: values are no longer sealed.
const clearWord = "clear"

// KeyID names a key: it is a part of the key's hash, and no secret. The zero id is no key.
type KeyID [idSize]byte

// String is the id in hexadecimal.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID parses what [KeyID.String] returns.
func ParseKeyID(s string) (id KeyID, err error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != idSize {
		return id, fmt.Errorf("sealed: %q is no id of a key", s)
	}
	return KeyID(raw), nil
}

// Ring has the keys that seal and open values. A nil Ring has none: it seals nothing. All methods
// may be called by several goroutines.
type Ring struct{ keys atomic.Pointer[keys] }

// keys is one state of a ring; never changed.
type keys struct {
	sealing *key // nil: values are not sealed
	all     []*key
}

// key is a key of AES-256, ready for use.
type key struct {
	id     KeyID
	block  cipher.Block
	subkey [aes.BlockSize]byte // K1 of CMAC
}

// Parse makes a ring of a text with a key on each line: 32 bytes in base64 or hexadecimal. The first
// one seals values, all of them open values. The word "clear" as the first line seals nothing. Blank
// lines and lines that begin with # are left out. No error contains a part of a key.
func Parse(text string) (*Ring, error) {
	set, err := parse(text)
	if err != nil {
		return nil, err
	}
	r := &Ring{}
	r.keys.Store(set)
	return r, nil
}

func parse(text string) (*keys, error) {
	set := &keys{}
	lines, first := bufio.NewScanner(strings.NewReader(text)), true
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if line == clearWord && first {
			first = false
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if slices.ContainsFunc(set.all, func(other *key) bool { return other.id == k.id }) {
			return nil, fmt.Errorf("line %d is a key that an earlier line has too", n)
		}
		if first {
			set.sealing, first = k, false
		}
		if set.all = append(set.all, k); len(set.all) > maxKeys {
			return nil, fmt.Errorf("there are more than %d keys", maxKeys)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, errors.New("a line is too long for a key")
	}
	if len(set.all) == 0 {
		return nil, errors.New("there is no key")
	}
	return set, nil
}

func parseKey(line string) (*key, error) {
	raw, err := hex.DecodeString(line)
	if err != nil || len(raw) != KeySize {
		if raw, err = base64.StdEncoding.DecodeString(line); err != nil {
			raw, err = base64.RawURLEncoding.DecodeString(line)
		}
	}
	if err != nil || len(raw) != KeySize {
		return nil, fmt.Errorf("it is not %d bytes in base64 or hexadecimal: make a key with: openssl rand -base64 32", KeySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("meanwhile encryption key\x00"), raw...))
	k := &key{id: KeyID(sum[:idSize]), block: block}
	// K1 of CMAC, NIST SP 800-38B, section 6.1.
	block.Encrypt(k.subkey[:], k.subkey[:])
	carry := k.subkey[0] >> 7
	for i := range k.subkey {
		k.subkey[i] <<= 1
		if i+1 < len(k.subkey) {
			k.subkey[i] |= k.subkey[i+1] >> 7
		}
	}
	k.subkey[len(k.subkey)-1] ^= carry * 0x87
	return k, nil
}

// NewKey makes a key, in the form that [Parse] reads.
func NewKey() string {
	raw := make([]byte, KeySize)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

// Current returns the id of the key that seals; the zero id if values are not sealed.
func (r *Ring) Current() KeyID {
	if k := r.sealing(); k != nil {
		return k.id
	}
	return KeyID{}
}

// Has reports whether the ring has a key.
func (r *Ring) Has(id KeyID) bool {
	_, err := r.key(id)
	return err == nil
}

// IDs returns the ids of all keys; the current one is the first, if values are sealed.
func (r *Ring) IDs() (ids []KeyID) {
	if r == nil {
		return nil
	}
	for _, k := range r.keys.Load().all {
		ids = append(ids, k.id)
	}
	return ids
}

func (r *Ring) sealing() *key {
	if r == nil {
		return nil
	}
	return r.keys.Load().sealing
}

// key returns the key with an id; nil for the zero id.
func (r *Ring) key(id KeyID) (*key, error) {
	if id == (KeyID{}) {
		return nil, nil
	}
	if r != nil {
		for _, k := range r.keys.Load().all {
			if k.id == id {
				return k, nil
			}
		}
	}
	return nil, job.Errorf(job.EncryptionKeyMissing, "a value is encrypted with the key %s, which this server does not have: add it to the keys of encryption", id)
}
