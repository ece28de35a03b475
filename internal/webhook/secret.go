package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
)

// Secret signs deliveries. Its text is shown by [Secret.Reveal] only: formatted or logged it is
// whsec_….
type Secret struct{ key []byte }

// The lengths of a secret's key in bytes.
const (
	newKey = 32
	minKey = 24
	maxKey = 64
)

const (
	secretPrefix = "whsec_"
	hidden       = "whsec_…"
)

// NewSecret makes a secret from the system's randomness.
func NewSecret() Secret {
	key := make([]byte, newKey)
	_, _ = rand.Read(key) // never fails: the program ends where there is no randomness
	return Secret{key}
}

// ParseSecret parses whsec_ and the standard base64 of 24 to 64 bytes. The error does not repeat
// the text.
func ParseSecret(text string) (Secret, error) {
	digits, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(digits)
	// The decoder skips line breaks, and other libraries may not: compare with the canonical text.
	if s := (Secret{key}); !ok || err != nil || len(key) < minKey || len(key) > maxKey || s.Reveal() != text {
		return Secret{}, fmt.Errorf("a secret must be %s and the base64 of %d to %d bytes", secretPrefix, minKey, maxKey)
	}
	return Secret{key}, nil
}

// Reveal returns the text of the secret, which its owner keeps.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// Hint returns the end of the text, by which its owner can tell it from others.
func (s Secret) Hint() string {
	text := s.Reveal()
	return "…" + text[len(text)-4:]
}

// String hides the secret.
func (s Secret) String() string { return hidden }

// GoString hides the secret.
func (s Secret) GoString() string { return hidden }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
