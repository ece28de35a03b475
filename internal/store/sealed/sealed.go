// Package sealed encrypts the values that stores keep: inputs, results, entries of output and side
// rows. A store seals a value right before it writes it and opens it right after it has read it,
// so all of its other code, and its answers, are those of a store without encryption.
//
// A sealed value names its key, so that values of several keys, and values that are not sealed,
// can be stored side by side. It is bound to its [Place]: moved to another row, it does not open.
// DESIGN.md describes the format.
package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	headerSize  = magicSize + idSize + randomSize
	magicSize   = 8
	idSize      = 8
	randomSize  = 20       // of the 24 bytes of a nonce; the others count the chunks
	chunkSize   = 64 << 10 // plain bytes of a chunk; only the last one may have less
	tagSize     = 16
	sealedChunk = chunkSize + tagSize
	lastChunk   = 1 << 31 // a bit of the number of the last chunk
)

// magic begins every sealed value. No text and no JSON begins with its first byte.
var magic = [magicSize]byte{0xff, 'm', 'w', 's', 'e', 'a', 'l', 1}

// HeaderSize is how many of the first bytes of a stored value tell how long the plain one is.
const HeaderSize = headerSize

// ErrDamaged reports a value that was changed since it was sealed, or belongs to another place.
var ErrDamaged error = job.Errorf(job.Internal, "an encrypted value in the store is damaged, or belongs to another place")

// Seal returns the value to store for a plain one: sealed by the ring's current key, or the plain
// value itself if the ring has none. An empty value stays empty: its length is no secret.
func (r *Ring) Seal(p Place, plain []byte) []byte {
	k := r.sealing()
	switch {
	case len(plain) == 0, p.clear:
		return plain
	case k == nil && !bytes.HasPrefix(plain, magic[:]):
		return plain
	}
	chunks := (len(plain) + chunkSize - 1) / chunkSize
	out := make([]byte, headerSize, headerSize+len(plain)+chunks*tagSize)
	copy(out, magic[:])
	if k == nil {
		return appendUnsealed(out, plain)
	}
	copy(out[magicSize:], k.id[:])
	_, _ = rand.Read(out[magicSize+idSize:]) // never fails: crypto/rand crashes the program instead
	var buf [placeSize]byte
	aead, place := k.aead(out[magicSize+idSize:]), p.appendTo(buf[:0])
	for n := uint32(0); ; n++ {
		size := min(len(plain), chunkSize)
		if size == len(plain) {
			return aead.Seal(out, nonce(out, n|lastChunk), plain, place)
		}
		out = aead.Seal(out, nonce(out, n), plain[:size], place)
		plain = plain[size:]
	}
}

// appendUnsealed stores a plain value that looks like a sealed one: with the key id zero and
// without encryption, in the same form.
func appendUnsealed(out, plain []byte) []byte {
	for len(plain) > 0 {
		size := min(len(plain), chunkSize)
		out = append(append(out, plain[:size]...), make([]byte, tagSize)...)
		plain = plain[size:]
	}
	return out
}

// Open returns the plain value of a stored one, in a slice of its own unless the stored value is
// plain. Errors: [job.EncryptionKeyMissing] if the ring lacks the key; [ErrDamaged].
func (r *Ring) Open(p Place, stored []byte) ([]byte, error) {
	if !IsSealed(stored) {
		return stored, nil
	}
	whole := Part{Size: Length(stored, int64(len(stored))), last: true}
	if whole.Size <= 0 {
		return nil, ErrDamaged
	}
	return r.OpenPart(p, stored[:headerSize], stored[headerSize:], whole)
}

// IsSealed reports whether a stored value, of which these are the first bytes, is sealed.
func IsSealed(first []byte) bool {
	return len(first) >= headerSize && bytes.Equal(first[:magicSize], magic[:])
}

// KeyOf returns the id of the key of a stored value; the zero id if it is not sealed.
func KeyOf(first []byte) (id KeyID) {
	if IsSealed(first) {
		copy(id[:], first[magicSize:])
	}
	return id
}

// Length returns the length of the plain value of a stored one, given its first bytes and its
// length.
func Length(first []byte, stored int64) int64 {
	if !IsSealed(first) {
		return stored
	}
	body := stored - headerSize
	return body - (body+sealedChunk-1)/sealedChunk*tagSize
}

// LengthSQL is [Length] as an expression of SQL: column is a column of bytes, length the
// expression for its length, and literal how the database writes bytes in hexadecimal, with %x.
func LengthSQL(column, length, literal string) string {
	return fmt.Sprintf("(case when %s then %s - %d - (%s + %d) / %d * %d else %s end)", IsSealedSQL(column, literal), length, headerSize, length, sealedChunk-1-headerSize, sealedChunk, tagSize, length)
}

// IsSealedSQL is [IsSealed] as a condition of SQL.
func IsSealedSQL(column, literal string) string {
	return fmt.Sprintf("substr(%s, 1, %d) = "+literal, column, magicSize, magic[:])
}

// Part is a part of a plain value, and where its chunks are in the sealed one.
type Part struct {
	From, Size    int64
	Offset, Bytes int64 // the bytes to read from the stored value; fewer at its end
	last          bool  // the bytes reach the end of the value
}

// PartOf returns the part of a sealed value with size plain bytes after the first from ones.
func PartOf(from, size int64) Part {
	first, end := from/chunkSize, (from+size+chunkSize-1)/chunkSize
	return Part{From: from, Size: size, Offset: headerSize + first*sealedChunk, Bytes: max(end-first, 0) * sealedChunk}
}

// Within limits the part to a value of a length, given the first bytes and the length of the
// stored value.
func (p Part) Within(first []byte, stored int64) Part {
	p.Size = max(min(p.Size, Length(first, stored)-p.From), 0)
	p.Bytes = max(min(p.Bytes, stored-p.Offset), 0)
	p.last = p.Offset+p.Bytes == stored
	return p
}

// OpenPart returns a part of the plain value, given the first bytes of the stored one and the
// bytes that the part names. Errors are those of [Ring.Open].
func (r *Ring) OpenPart(p Place, first, chunks []byte, part Part) ([]byte, error) {
	if part.Size <= 0 {
		return nil, nil
	}
	k, err := r.key(KeyOf(first))
	if err != nil {
		return nil, err
	}
	var aead cipher.AEAD
	if k != nil {
		aead = k.aead(first[magicSize+idSize:])
	}
	var buf [placeSize]byte
	place, plain := p.appendTo(buf[:0]), make([]byte, 0, len(chunks))
	for n := uint32(part.From / chunkSize); len(chunks) > 0; n++ {
		size := min(len(chunks), sealedChunk)
		number := n
		if part.last && size == len(chunks) {
			number |= lastChunk
		}
		if size < tagSize {
			return nil, ErrDamaged
		}
		if k == nil {
			plain = append(plain, chunks[:size-tagSize]...)
		} else if plain, err = aead.Open(plain, nonce(first, number), chunks[:size], place); err != nil {
			return nil, ErrDamaged
		}
		chunks = chunks[size:]
	}
	from := part.From % chunkSize
	if int64(len(plain)) < from+part.Size {
		return nil, ErrDamaged
	}
	return plain[from : from+part.Size : from+part.Size], nil
}

// nonce is the second half of the 24 bytes of a nonce: 8 random bytes, and the number of a chunk.
func nonce(header []byte, number uint32) []byte {
	n := make([]byte, 0, 12)
	return binary.BigEndian.AppendUint32(append(n, header[headerSize-8:headerSize]...), number)
}

// aead derives the key of one value from the first 12 random bytes, as XAES-256-GCM does.
func (k *key) aead(random []byte) cipher.AEAD {
	var derived [32]byte
	for i := range 2 {
		block := derived[i*aes.BlockSize:][:aes.BlockSize]
		copy(block, []byte{0, byte(i + 1), 'X', 0})
		copy(block[4:], random[:12])
		for j := range block {
			block[j] ^= k.subkey[j]
		}
		k.block.Encrypt(block, block)
	}
	block, err := aes.NewCipher(derived[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // the block has 16 bytes
	}
	return aead
}
