package sealed

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

func newRing(t *testing.T, lines ...string) *Ring {
	t.Helper()
	r, err := Parse(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The vectors of the specification of XAES-256-GCM, c2sp.org/XAES-256-GCM.
func TestDerivationIsThatOfXAES(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ key, plain, place, sealed string }{
		{strings.Repeat("01", 32), "XAES-256-GCM", "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{strings.Repeat("03", 32), "XAES-256-GCM", "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		k, err := parseKey(v.key)
		if err != nil {
			t.Fatal(err)
		}
		nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
		got := k.aead(nonce[:12]).Seal(nil, nonce[12:], []byte(v.plain), []byte(v.place))
		if hex.EncodeToString(got) != v.sealed {
			t.Errorf("sealed as %x, want %s", got, v.sealed)
		}
	}
}

func TestValuesOpenAsTheyWereSealed(t *testing.T) {
	t.Parallel()
	r, p := newRing(t, NewKey()), Input(job.NewID())
	for _, size := range []int{0, 1, 100, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 5} {
		plain := bytes.Repeat([]byte("abc!"), size/4+1)[:size]
		stored := r.Seal(p, plain)
		if size > 3 && bytes.Contains(stored, plain[:4]) {
			t.Errorf("the sealed value of %d bytes has plain text", size)
		}
		if got := Length(stored, int64(len(stored))); got != int64(size) {
			t.Errorf("the length of %d bytes is %d", size, got)
		}
		if got, err := r.Open(p, stored); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes became %d, %v", size, len(got), err)
		}
		if size > 0 && bytes.Equal(stored, r.Seal(p, plain)) {
			t.Error("two sealed values of the same bytes are equal")
		}
	}
}

// A part needs only the chunks that it names.
func TestPartsOpen(t *testing.T) {
	t.Parallel()
	r, p := newRing(t, NewKey()), Result(job.NewID())
	plain := make([]byte, 3*chunkSize+100)
	for i := range plain {
		plain[i] = byte(i / 7)
	}
	for _, ring := range []*Ring{r, nil} {
		if ring == nil {
			copy(plain, magic[:]) // looks like a sealed value
		}
		stored := ring.Seal(p, plain)
		total := int64(len(stored))
		for _, from := range []int64{0, 1, chunkSize - 1, chunkSize, 2*chunkSize + 7, 3 * chunkSize, int64(len(plain)) - 1, int64(len(plain)), int64(len(plain)) + 9} {
			for _, size := range []int64{0, 1, 10, chunkSize, chunkSize + 1, 1 << 20} {
				part := PartOf(from, size).Within(stored, total)
				want := plain[min(from, int64(len(plain))):min(from+size, int64(len(plain)))]
				var chunks []byte
				if part.Bytes > 0 {
					chunks = stored[part.Offset:][:part.Bytes]
				}
				got, err := ring.OpenPart(p, stored[:HeaderSize], chunks, part)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes after %d: %d bytes, %v", size, from, len(got), err)
				}
			}
		}
	}
}

// Without a key a value is stored as it is, but one that looks like a sealed value: no caller can
// store what the server cannot read.
func TestPlainValuesAreNeverMistaken(t *testing.T) {
	t.Parallel()
	var none *Ring
	p := Input(job.NewID())
	sealed := newRing(t, NewKey()).Seal(p, []byte("secret"))
	for _, plain := range [][]byte{sealed, magic[:], append(magic[:], "and more"...), bytes.Repeat(magic[:], chunkSize)} {
		stored := none.Seal(p, plain)
		if got, err := none.Open(p, stored); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q became %q, %v", plain[:8], got, err)
		}
		if got := Length(stored, int64(len(stored))); got != int64(len(plain)) {
			t.Errorf("the length of %d bytes is %d", len(plain), got)
		}
	}
	if plain := []byte("{}"); !bytes.Equal(none.Seal(p, plain), plain) {
		t.Error("a plain value is changed")
	}
}

func TestValuesAreBoundToTheirPlaces(t *testing.T) {
	t.Parallel()
	r, id := newRing(t, NewKey()), job.NewID()
	set := store.RowSet{Owner: job.Owner{Tenant: "a", User: "b"}, Kind: "message", Parent: "p"}
	moved := set
	moved.Owner = job.Owner{Tenant: "ab"}
	places := []Place{Input(id), Input(job.NewID()), Result(id), Entry(id, 1), Entry(id, 2), Block(id, 1), Tail(id, 1), Row(set, "x"), Row(set, "y"), Row(moved, "x")}
	for i, from := range places {
		stored := r.Seal(from, []byte("text"))
		for j, to := range places {
			if _, err := r.Open(to, stored); (err == nil) != (i == j) || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("a value of the place %d at the place %d: %v", i, j, err)
			}
		}
	}
	if row := r.Seal(Row(store.RowSet{Owner: store.ServerOwner}, "x"), []byte("text")); string(row) != "text" {
		t.Error("a row of the server is sealed")
	}
}

// Whatever byte is changed, cut off or moved, the value does not open.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	r, p := newRing(t, NewKey()), Input(job.NewID())
	stored := r.Seal(p, make([]byte, 2*chunkSize+5))
	damaged := map[string][]byte{
		"without the last chunk":  stored[:headerSize+2*sealedChunk],
		"without the first chunk": append(stored[:headerSize:headerSize], stored[headerSize+sealedChunk:]...),
		"twice a chunk":           append(stored[:headerSize+sealedChunk:headerSize+sealedChunk], stored[headerSize:]...),
		"a header alone":          stored[:headerSize],
		"a short tag":             stored[:headerSize+3],
	}
	for _, at := range []int{magicSize + idSize, headerSize - 1, headerSize, headerSize + sealedChunk, len(stored) - 1} {
		changed := bytes.Clone(stored)
		changed[at] ^= 1
		damaged[fmt.Sprint("the byte ", at)] = changed
	}
	for what, value := range damaged {
		if _, err := r.Open(p, value); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRingsOfSeveralKeys(t *testing.T) {
	t.Parallel()
	old, next := NewKey(), NewKey()
	p := Input(job.NewID())
	before, both := newRing(t, old), newRing(t, "# the new one", next, "", old)
	stored := before.Seal(p, []byte("text"))
	if got, err := both.Open(p, stored); err != nil || string(got) != "text" || KeyOf(stored) != before.Current() {
		t.Errorf("a value of the old key: %q, %v", got, err)
	}
	stored = both.Seal(p, []byte("text"))
	if _, err := before.Open(p, stored); job.CodeOf(err) != job.EncryptionKeyMissing || !strings.Contains(err.Error(), both.Current().String()) {
		t.Errorf("a value of an unknown key: %v", err)
	}
	off := newRing(t, "clear", next, old)
	if got := off.Seal(p, []byte("text")); string(got) != "text" || off.Current() != (KeyID{}) {
		t.Errorf("after the word clear %q is stored", got)
	}
	if got, err := off.Open(p, stored); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
}

// No error shows a key, not even a wrong one.
func TestBadRings(t *testing.T) {
	t.Parallel()
	key := NewKey()
	for text, want := range map[string]string{
		"":                           "there is no key",
		"clear":                      "there is no key",
		"# only a comment":           "there is no key",
		key + "\n" + key:             "line 2 is a key that an earlier line has too",
		key[:40]:                     "line 1: it is not 32 bytes",
		"\n" + key + "x":             "line 2: it is not 32 bytes",
		key + "\nclear":              "line 2: it is not 32 bytes",
		strings.Repeat("k", 100_000): "a line is too long for a key",
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), key[:8]) {
			t.Errorf("the error shows a part of the key: %v", err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	r, _ := Parse(NewKey())
	p := Input(job.NewID())
	for _, size := range []int{100, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			plain := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := r.Open(p, r.Seal(p, plain)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
