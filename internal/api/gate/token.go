package gate

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Rights is a bit set of the actions that a watch token allows in addition to reading its job.
type Rights uint8

// MayCancel allows cancelling the job.
const MayCancel Rights = 1

// Grant is the content of a token. A watch token is for one job. A user's token is for all that
// one user asks, watches, cancels and lists.
type Grant struct {
	Owner   job.Owner // requests with the token are made in this name
	Expires time.Time // whole seconds

	// of a watch token
	Job    job.ID
	Rights Rights

	// of a user's token

	// Renewable is until when the token may be exchanged for another; zero for a watch token.
	// No token that comes of it lives longer.
	Renewable time.Time
	// Queues are the queues in which the token may submit jobs, with commas; "" for all.
	Queues string
	// Key is the id of the API key with which the token was made; "" for none. The token ends with
	// it.
	Key string

	key *tokenKey // that opened the token; nil for a grant that was not opened
}

// IsUser reports whether the grant is that of a user's token.
func (g *Grant) IsUser() bool { return !g.Renewable.IsZero() }

// Tokens seals grants to tokens and opens them. Without the key it is impossible to make, change
// or read a token. The server stores no tokens, so it cannot revoke one before it expires. Tokens
// is safe for concurrent use.
//
// There may be several keys: the last one seals, and each opens the tokens that it has sealed,
// which carry its id. So a new key logs nobody out, and an old one is dropped once its tokens
// have expired.
//
// A token is encrypted and authenticated with a synthetic IV: the tag is the first 16 bytes
// of an HMAC-SHA256 of the grant, and it is also the IV with which AES-CTR encrypts the
// grant. So the same grant always gives the same token. Watch tokens and users' tokens have
// different keys, which are derived from the same one.
type Tokens struct {
	// set once
	now       func() time.Time
	onUnknown func() // see OnUnknownKey; may be nil

	keys atomic.Pointer[[]*tokenKey]
}

// tokenKey is one key of Tokens.
type tokenKey struct {
	secret      []byte
	id          string    // keyIDSize characters
	watch, user sync.Pool // of *sealer

	forgotten atomic.Bool // it is no longer among the keys
}

// sealer holds the keyed ciphers and the scratch memory for one seal or open at a time.
type sealer struct {
	mac   hash.Hash // keyed
	block cipher.Block

	sum          [sha256.Size]byte
	counter, pad [aes.BlockSize]byte
	sealed       []byte // scratch; overwritten by each Seal
}

// TokenKeySize is the length of a key of [NewTokens] in bytes.
const TokenKeySize = 32

const (
	tokenPrefix = "wt_"
	userPrefix  = "ut_"
	keyIDSize   = 4              // characters
	tagSize     = 16             // bytes
	headSize    = 1 + 8 + 16 + 1 // rights, expiry, job, length of the tenant's name
	maxToken    = 2048           // bytes of text
)

// NewTokens returns the Tokens of secret keys; see [Tokens.SetKeys].
func NewTokens(keys ...[]byte) (*Tokens, error) {
	t := &Tokens{now: time.Now}
	return t, t.SetKeys(keys...)
}

// SetKeys replaces the keys, oldest first. Each must be [TokenKeySize] random bytes.
func (t *Tokens) SetKeys(keys ...[]byte) error {
	if len(keys) == 0 {
		return errors.New("tokens need a key")
	}
	var before, all []*tokenKey
	if loaded := t.keys.Load(); loaded != nil {
		before = *loaded
	}
	for _, key := range keys {
		// A key that stays is the same value, which the grants of open sockets refer to.
		if i := slices.IndexFunc(before, func(k *tokenKey) bool { return bytes.Equal(k.secret, key) }); i >= 0 {
			all = append(all, before[i])
			continue
		}
		k, err := newTokenKey(key)
		if err != nil {
			return err
		}
		all = append(all, k)
	}
	t.keys.Store(&all)
	for _, k := range before {
		if !slices.Contains(all, k) {
			k.forgotten.Store(true)
		}
	}
	return nil
}

// OnUnknownKey makes Open call load for a token of a key that it does not have, and try again. So
// a token opens that another process has sealed with a new key. load may call SetKeys; it must
// bound how often it works, because anyone can send such tokens. Call OnUnknownKey before Open.
func (t *Tokens) OnUnknownKey(load func()) { t.onUnknown = load }

func newTokenKey(key []byte) (*tokenKey, error) {
	if len(key) != TokenKeySize {
		return nil, fmt.Errorf("a key of tokens has %d bytes, not %d", len(key), TokenKeySize)
	}
	id, err := hkdf.Expand(sha256.New, key, "meanwhile token key id 1", keyIDSize*6/8)
	if err != nil {
		return nil, err
	}
	k := &tokenKey{secret: slices.Clone(key), id: base64.RawURLEncoding.EncodeToString(id)}
	return k, errors.Join(setSealers(&k.watch, key, "meanwhile watch token 1"), setSealers(&k.user, key, "meanwhile user token 1"))
}

// setSealers makes a pool make sealers with the keys that are derived for a purpose.
func setSealers(pool *sync.Pool, key []byte, purpose string) error {
	keys, err := hkdf.Expand(sha256.New, key, purpose, 2*32)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(keys[32:])
	if err != nil {
		return err
	}
	pool.New = func() any {
		return &sealer{mac: hmac.New(sha256.New, keys[:32]), block: block, sealed: make([]byte, tagSize)}
	}
	return nil
}

// Seal appends the token of a grant to b: its prefix, the id of the key, a point, and base64url
// digits. It needs no escaping in a URL or in JSON.
func (t *Tokens) Seal(b []byte, g Grant) []byte {
	keys := *t.keys.Load()
	key := keys[len(keys)-1]
	prefix, pool := tokenPrefix, &key.watch
	if g.IsUser() {
		prefix, pool = userPrefix, &key.user
	}
	s := pool.Get().(*sealer)
	defer pool.Put(s)
	s.sealed = g.append(s.sealed[:tagSize])
	tag, body := s.sealed[:tagSize], s.sealed[tagSize:]
	copy(tag, s.tag(body))
	s.crypt(tag, body)
	b = append(append(append(b, prefix...), key.id...), '.')
	return base64.RawURLEncoding.AppendEncode(b, s.sealed)
}

// Open decrypts and checks a token. An invalid or expired one is [job.BadToken]. The error does
// not reveal the grant.
func (t *Tokens) Open(text string) (Grant, error) {
	if len(text) > maxToken {
		return Grant{}, errNoToken
	}
	digits, isUser := strings.CutPrefix(text, userPrefix)
	ok := isUser
	if !isUser {
		digits, ok = strings.CutPrefix(text, tokenPrefix)
	}
	keyID, sealedDigits, hasID := strings.Cut(digits, ".")
	if !hasID {
		// A watch token of a version whose tokens had no id of their key. Any key may have sealed
		// it. Drop this when the tokens of that version have expired everywhere.
		keyID, sealedDigits, ok = "", digits, ok && !isUser
	}
	sealed, isBase64 := decodeToken(sealedDigits)
	if !ok || !isBase64 || hasID && keyID == "" {
		return Grant{}, errNoToken
	}
	key, body := t.find(isUser, keyID, sealed)
	if key == nil && hasID && t.onUnknown != nil && !t.hasKey(keyID) {
		t.onUnknown()
		key, body = t.find(isUser, keyID, sealed)
	}
	if key == nil {
		return Grant{}, errOfNoKey
	}
	g, ok := parseGrant(body, isUser)
	if !ok {
		return Grant{}, badToken("this token is of another version of the server: get a new one")
	}
	if !t.now().Before(g.Expires) {
		return Grant{}, expiredToken(&g)
	}
	g.key = key
	return g, nil
}

// find returns the key that has sealed a token, and the grant's bytes; nil for none. keyID is ""
// for a token without one.
func (t *Tokens) find(isUser bool, keyID string, sealed []byte) (*tokenKey, []byte) {
	for _, key := range slices.Backward(*t.keys.Load()) {
		if keyID != "" && key.id != keyID {
			continue
		}
		if body, genuine := key.open(isUser, slices.Clone(sealed)); genuine {
			return key, body
		}
	}
	return nil, nil
}

// hasKey reports whether there is a key with an id.
func (t *Tokens) hasKey(id string) bool {
	return slices.ContainsFunc(*t.keys.Load(), func(k *tokenKey) bool { return k.id == id })
}

// open decrypts a token in place. genuine is false for one that this key has not sealed.
func (k *tokenKey) open(isUser bool, sealed []byte) (body []byte, genuine bool) {
	pool := &k.watch
	if isUser {
		pool = &k.user
	}
	s := pool.Get().(*sealer)
	defer pool.Put(s)
	tag, body := sealed[:tagSize], sealed[tagSize:]
	s.crypt(tag, body)
	return body, hmac.Equal(tag, s.tag(body))
}

// errOfNoKey refuses a token that none of the keys has sealed.
var errOfNoKey = badToken("this token was altered, is of another server or was revoked: get a new one (a job's urls.watch, or POST /v1/tokens)")

var errNoToken = badToken("this is not a token: use urls.watch of a job, or a token of POST /v1/tokens, as it is")

// expiredToken refuses a token whose time is over.
func expiredToken(g *Grant) error {
	if g.IsUser() {
		return badToken("this user's token has expired: get a new one from the application; a page renews its token before it expires")
	}
	return badToken("this watch token has expired: get the job's urls.watch anew")
}

func badToken(message string) error { return job.Errorf(job.BadToken, "%s", message) }

// decodeToken decodes the base64 of a token. It accepts only one spelling of each token.
func decodeToken(digits string) (sealed []byte, ok bool) {
	// The base64 decoder would skip line breaks.
	if strings.ContainsAny(digits, "\r\n") {
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
// user. In place of the job a user's token has the end of its renewal, in Unix seconds, and the
// API key's id, packed; zeros for none. After the tenant it has the length of the user's name, the user, and the queues.
func (g Grant) append(b []byte) []byte {
	b = append(b, byte(g.Rights))
	b = binary.BigEndian.AppendUint64(b, uint64(g.Expires.Unix()))
	if g.IsUser() {
		b = binary.BigEndian.AppendUint64(b, uint64(g.Renewable.Unix()))
		b = binary.BigEndian.AppendUint64(b, packKeyID(g.Key))
	} else {
		b = append(b, g.Job[:]...)
	}
	b = append(b, byte(len(g.Owner.Tenant)))
	b = append(b, g.Owner.Tenant...)
	if g.IsUser() {
		b = append(b, byte(len(g.Owner.User)))
	}
	return append(append(b, g.Owner.User...), g.Queues...)
}

// parseGrant decodes what append encoded. It refuses rights that this version does not
// know.
func parseGrant(b []byte, isUser bool) (Grant, bool) {
	g := Grant{Rights: Rights(b[0]), Expires: time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0)}
	tenant, names := int(b[headSize-1]), string(b[headSize:])
	if tenant > len(names) || g.Rights&^MayCancel != 0 {
		return Grant{}, false
	}
	g.Owner = job.Owner{Tenant: names[:tenant], User: names[tenant:]}
	if !isUser {
		copy(g.Job[:], b[9:])
		return g, true
	}
	g.Renewable = time.Unix(int64(binary.BigEndian.Uint64(b[9:])), 0)
	if g.Key, names = unpackKeyID(binary.BigEndian.Uint64(b[17:])), g.Owner.User; len(names) == 0 || int(names[0]) > len(names)-1 {
		return Grant{}, false
	}
	end := 1 + int(names[0])
	g.Owner.User, g.Queues = names[1:end], names[end:]
	return g, true
}

// packKeyID packs the id of an API key, whose 12 digits have 5 bits each. "" is 0.
func packKeyID(id string) (packed uint64) {
	if id == "" {
		return 0
	}
	packed = 1 // the bit in front tells an id from none
	for i := range len(id) {
		packed = packed<<5 | uint64(strings.IndexByte(access.KeyIDDigits, id[i])&31)
	}
	return packed
}

// unpackKeyID returns the id that was packed.
func unpackKeyID(packed uint64) string {
	if packed == 0 {
		return ""
	}
	var id [access.KeyIDSize]byte
	for i := range slices.Backward(id[:]) {
		id[i] = access.KeyIDDigits[packed&31]
		packed >>= 5
	}
	return string(id[:])
}
