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

// Rights is a bit set of the actions that a watch token allows in addition to reading its job.
type Rights uint8

// MayCancel allows cancelling the job.
const MayCancel Rights = 1

// Grant is the content of a watch token: an owner, a job, the rights and the expiry.
type Grant struct {
	Owner   job.Owner // requests with the token are made in this name
	Job     job.ID
	Rights  Rights
	Expires time.Time // whole seconds
}

// Tokens seals grants to watch tokens and opens them. Without the key it is impossible to make,
// change or read a token. The server stores no tokens, so it cannot revoke one before it
// expires. Tokens is safe for concurrent use.
//
// A token is encrypted and authenticated with a synthetic IV: the tag is the first 16 bytes
// of an HMAC-SHA256 of the grant, and it is also the IV with which AES-CTR encrypts the
// grant. So the same grant always gives the same token.
type Tokens struct {
	// set once
	now     func() time.Time
	sealers sync.Pool // of *sealer
}

// sealer holds the keyed ciphers and the scratch memory for one seal or open at a time.
type sealer struct {
	mac   hash.Hash // keyed
	block cipher.Block

	sum          [sha256.Size]byte
	counter, pad [aes.BlockSize]byte
	sealed       []byte // scratch; overwritten by each Seal
}

// TokenKeySize is the length of the key of [NewTokens] in bytes.
const TokenKeySize = 32

const (
	tokenPrefix = "wt_"
	tagSize     = 16             // bytes
	headSize    = 1 + 8 + 16 + 1 // rights, expiry, job, length of the tenant's name
	maxToken    = 1024           // bytes of text
)

// NewTokens returns the Tokens of a secret key, which must be [TokenKeySize] random bytes.
func NewTokens(key []byte) (*Tokens, error) {
	if len(key) != TokenKeySize {
		return nil, fmt.Errorf("the key of watch tokens has %d bytes, not %d", len(key), TokenKeySize)
	}
	keys, err := hkdf.Expand(sha256.New, key, "meanwhile watch token 1", 2*32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(keys[32:])
	if err != nil {
		return nil, err
	}
	t := &Tokens{now: time.Now}
	t.sealers.New = func() any {
		return &sealer{mac: hmac.New(sha256.New, keys[:32]), block: block, sealed: make([]byte, tagSize)}
	}
	return t, nil
}

// Seal appends the token of a grant to b: "wt_" and base64url digits, which need no escaping
// in a URL or in JSON.
func (t *Tokens) Seal(b []byte, g Grant) []byte {
	s := t.sealers.Get().(*sealer)
	defer t.sealers.Put(s)
	s.sealed = g.append(s.sealed[:tagSize])
	tag, body := s.sealed[:tagSize], s.sealed[tagSize:]
	copy(tag, s.tag(body))
	s.crypt(tag, body)
	return base64.RawURLEncoding.AppendEncode(append(b, tokenPrefix...), s.sealed)
}

// Open decrypts and checks a token. An invalid or expired one is [job.BadToken]. The error does
// not reveal the grant.
func (t *Tokens) Open(text string) (Grant, error) {
	sealed, ok := decodeToken(text)
	if !ok {
		return Grant{}, badToken("this is not a watch token: use urls.watch of a job as it is")
	}
	tag, body := sealed[:tagSize], sealed[tagSize:]
	s := t.sealers.Get().(*sealer)
	defer t.sealers.Put(s)
	s.crypt(tag, body)
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

func badToken(message string) error { return job.Errorf(job.BadToken, "%s", message) }

// decodeToken decodes the base64 of a token. It accepts only one spelling of each token.
func decodeToken(text string) (sealed []byte, ok bool) {
	digits, ok := strings.CutPrefix(text, tokenPrefix)
	// The base64 decoder would skip line breaks.
	if !ok || len(text) > maxToken || strings.ContainsAny(digits, "\r\n") {
		return nil, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(digits)
	return sealed, err == nil && len(sealed) >= tagSize+headSize
}

// tag returns the tag of a grant's bytes. It is valid until the next call.
func (s *sealer) tag(body []byte) []byte {
	s.mac.Reset()
	s.mac.Write(body)
	return s.mac.Sum(s.sum[:0])[:tagSize]
}

// crypt encrypts or decrypts a grant's bytes in place. It is AES-CTR as of [cipher.NewCTR],
// which would allocate 512 bytes for each token of two or three blocks.
func (s *sealer) crypt(tag, body []byte) {
	copy(s.counter[:], tag)
	for len(body) > 0 {
		s.block.Encrypt(s.pad[:], s.counter[:])
		body = body[subtle.XORBytes(body, body, s.pad[:]):]
		// Increment the counter as one big-endian number.
		for i := len(s.counter) - 1; i >= 0; i-- {
			if s.counter[i]++; s.counter[i] != 0 {
				break
			}
		}
	}
}

// append encodes the grant: rights, expiry in Unix seconds, job, and the owner's tenant and
// user.
func (g Grant) append(b []byte) []byte {
	b = append(b, byte(g.Rights))
	b = binary.BigEndian.AppendUint64(b, uint64(g.Expires.Unix()))
	b = append(b, g.Job[:]...)
	b = append(b, byte(len(g.Owner.Tenant)))
	return append(append(b, g.Owner.Tenant...), g.Owner.User...)
}

// parseGrant decodes what append encoded. It refuses rights that this version does not
// know.
func parseGrant(b []byte) (Grant, bool) {
	g := Grant{Rights: Rights(b[0]), Expires: time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0)}
	copy(g.Job[:], b[9:])
	tenant, names := int(b[headSize-1]), b[headSize:]
	if tenant > len(names) || g.Rights&^MayCancel != 0 {
		return Grant{}, false
	}
	g.Owner = job.Owner{Tenant: string(names[:tenant]), User: string(names[tenant:])}
	return g, true
}
