package gate

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Rights are what a watch token allows beside reading its job.
type Rights uint8

// MayCancel allows to cancel the job.
const MayCancel Rights = 1

// Grant is what a watch token says: who may do what with one job, until when.
type Grant struct {
	Owner   job.Owner // in whose name its bearer asks
	Job     job.ID
	Rights  Rights
	Expires time.Time // whole seconds
}

// Tokens makes watch tokens and reads them. A token is a grant, sealed: nobody
// without the key can make one, alter one, or read from one whose job it is. It is
// not kept anywhere, so it cannot be taken back before it expires.
//
// The seal is deterministic authenticated encryption with a synthetic IV: the first
// 16 bytes of an HMAC-SHA256 over the grant are the tag, and the IV under which
// AES-CTR hides the grant. The same grant is always the same token.
type Tokens struct {
	// set once
	now     func() time.Time
	sealers sync.Pool // of *sealer
}

// sealer is what sealing takes, used by one at a time.
type sealer struct {
	mac  hash.Hash // keyed
	hide cipher.Block

	sum          [sha256.Size]byte
	counter, pad [aes.BlockSize]byte
	sealed       []byte // the last one, to be written over
}

// TokenKey is the length of the key of [NewTokens] in bytes.
const TokenKeySize = 32

const (
	tokenPrefix = "wt_"
	tokenTag    = 16 // bytes
	tokenHead   = 1 + 8 + 16 + 1
	maxToken    = 1024
)

// NewTokens makes the tokens of a secret key of [TokenKey] random bytes.
func NewTokens(key []byte) (*Tokens, error) {
	if len(key) != TokenKeySize {
		return nil, fmt.Errorf("the key of watch tokens has %d bytes, not %d", len(key), TokenKeySize)
	}
	keys, err := hkdf.Expand(sha256.New, key, "meanwhile watch token 1", 2*32)
	if err != nil {
		return nil, err
	}
	hide, err := aes.NewCipher(keys[32:])
	if err != nil {
		return nil, err
	}
	t := &Tokens{now: time.Now}
	t.sealers.New = func() any {
		return &sealer{mac: hmac.New(sha256.New, keys[:32]), hide: hide, sealed: make([]byte, tokenTag)}
	}
	return t, nil
}

// Seal appends a grant's token: "wt_" and characters that need no escaping anywhere.
func (t *Tokens) Seal(b []byte, g Grant) []byte {
	s := t.sealers.Get().(*sealer)
	defer t.sealers.Put(s)
	s.sealed = g.append(s.sealed[:tokenTag])
	tag, body := s.sealed[:tokenTag], s.sealed[tokenTag:]
	copy(tag, s.tag(body))
	s.cover(tag, body)
	return base64.RawURLEncoding.AppendEncode(append(b, tokenPrefix...), s.sealed)
}

// Open reads a token. One that is not ours, was altered or has expired is
// [job.BadToken], and no error says anything of it.
func (t *Tokens) Open(text string) (Grant, error) {
	sealed, ok := decodeToken(text)
	if !ok {
		return Grant{}, badToken("this is not a watch token: use urls.watch of a job as it is")
	}
	tag, body := sealed[:tokenTag], sealed[tokenTag:]
	s := t.sealers.Get().(*sealer)
	defer t.sealers.Put(s)
	s.cover(tag, body)
	if !hmac.Equal(tag, s.tag(body)) {
		return Grant{}, badToken("this watch token was altered, or is of another server: get the job's urls.watch anew")
	}
	g, ok := parseGrant(body)
	if !ok {
		return Grant{}, badToken("this watch token is of another version of the server: get the job's urls.watch anew")
	}
	if !t.now().Before(g.Expires) {
		return Grant{}, errExpired
	}
	return g, nil
}

var errExpired = badToken("this watch token has expired: get the job's urls.watch anew")

func badToken(sentence string) error { return job.Errorf(job.BadToken, "%s", sentence) }

// decodeToken takes the one spelling that a token has.
func decodeToken(text string) (sealed []byte, ok bool) {
	digits, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxToken || strings.ContainsAny(digits, "\r\n") { // which the decoder would skip
		return nil, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(digits)
	return sealed, err == nil && len(sealed) >= tokenTag+tokenHead
}

// tag is the seal of a grant's bytes. It stays as it is until the next one.
func (s *sealer) tag(body []byte) []byte {
	s.mac.Reset()
	s.mac.Write(body)
	return s.mac.Sum(s.sum[:0])[:tokenTag]
}

// cover hides a grant's bytes, and uncovers them again. It is [cipher.NewCTR], which
// takes half a kilobyte of memory each time, for two blocks or three.
func (s *sealer) cover(tag, body []byte) {
	copy(s.counter[:], tag)
	for len(body) > 0 {
		s.hide.Encrypt(s.pad[:], s.counter[:])
		body = body[subtle.XORBytes(body, body, s.pad[:]):]
		for i := len(s.counter) - 1; i >= 0; i-- {
			if s.counter[i]++; s.counter[i] != 0 {
				break
			}
		}
	}
}

// append writes the grant: rights, expiry, job, and the owner's two names.
func (g Grant) append(b []byte) []byte {
	b = append(b, byte(g.Rights))
	b = binary.BigEndian.AppendUint64(b, uint64(g.Expires.Unix()))
	b = append(b, g.Job[:]...)
	b = append(b, byte(len(g.Owner.Tenant)))
	return append(append(b, g.Owner.Tenant...), g.Owner.User...)
}

// parseGrant reads what append wrote.
func parseGrant(b []byte) (Grant, bool) {
	g := Grant{Rights: Rights(b[0]), Expires: time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0)}
	copy(g.Job[:], b[9:])
	tenant, names := int(b[tokenHead-1]), b[tokenHead:]
	if tenant > len(names) || g.Rights&^MayCancel != 0 {
		return Grant{}, false
	}
	g.Owner = job.Owner{Tenant: string(names[:tenant]), User: string(names[tenant:])}
	return g, true
}
