package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Secret is the secret part of a key: random bits that nobody can guess.
type Secret [32]byte

// A key as text is mw_ID_SECRET: base32 digits in lower case, and base64url digits.
const (
	KeyPrefix  = "mw_"
	KeyIDSize  = 12 // characters
	secretSize = 43 // characters of base64url without padding
	keySize    = len(KeyPrefix) + KeyIDSize + 1 + secretSize
)

// KeyIDDigits are the 32 digits of ids: those of base32 (RFC 4648), in lower case.
const KeyIDDigits = "abcdefghijklmnopqrstuvwxyz234567"

// NewKeyID returns a random id of a key. An id is no secret: lists and logs show it.
func NewKeyID() string {
	var id [KeyIDSize]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand crashes the program instead
	for i, b := range id {
		id[i] = KeyIDDigits[b%32]
	}
	return string(id[:])
}

// NewSecret returns a random secret.
func NewSecret() (s Secret) {
	_, _ = rand.Read(s[:]) // never fails: crypto/rand crashes the program instead
	return s
}

// Hash returns what is stored of the secret. It needs no slow hash: 256 random bits cannot be
// guessed.
func (s Secret) Hash() [sha256.Size]byte { return sha256.Sum256(s[:]) }

// KeyText returns the key as a caller sends it. It is shown once and never stored.
func KeyText(id string, s Secret) string {
	return KeyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(s[:])
}

// ParseKeyText reads the text of a key; false for a malformed one. Each key has one spelling.
func ParseKeyText(text string) (id string, s Secret, ok bool) {
	if len(text) != keySize || !strings.HasPrefix(text, KeyPrefix) || text[len(KeyPrefix)+KeyIDSize] != '_' {
		return "", s, false
	}
	id = text[len(KeyPrefix) : len(KeyPrefix)+KeyIDSize]
	digits := text[keySize-secretSize:]
	if !ValidKeyID(id) || strings.ContainsAny(digits, "\r\n") { // the decoder would skip line breaks
		return "", s, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(s[:], []byte(digits))
	return id, s, err == nil && n == len(s)
}

// ValidKeyID reports whether a text is spelled like the id of a key.
func ValidKeyID(id string) bool {
	for _, c := range id {
		if strings.IndexByte(KeyIDDigits, byte(c)) < 0 || c > 'z' {
			return false
		}
	}
	return len(id) == KeyIDSize
}
