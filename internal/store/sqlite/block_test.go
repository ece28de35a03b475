package sqlite

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

func decodeBlock(t testing.TB, block []byte) (entries []job.Entry, err error) {
	t.Helper()
	err = eachEntry(block, func(e job.Entry) { entries = append(entries, e) })
	return entries, err
}

func TestBlocksConcatenate(t *testing.T) {
	t.Parallel()
	first := []job.Entry{{Kind: job.KindText, Attempt: 1, Events: 1, Data: []byte("one")}, {Kind: job.KindProgress, Attempt: 300, Events: 7, Data: []byte{}}}
	second := []job.Entry{{Kind: job.KindLog, Attempt: 2, Events: 1, Data: bytes.Repeat([]byte("x"), 300)}}
	got, err := decodeBlock(t, appendBlock(appendBlock(nil, first), second))
	if want := append(first, second...); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
}

func TestEachEntryRefusesDamagedBlock(t *testing.T) {
	t.Parallel()
	whole := appendBlock(nil, []job.Entry{{Kind: job.KindText, Attempt: 1, Events: 1, Data: []byte("data")}})
	for n := 1; n < len(whole); n++ {
		if _, err := decodeBlock(t, whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were decoded without an error", n, len(whole))
		}
	}
	for name, block := range map[string][]byte{
		"kind 0":                       {0, 1, 1, 0},
		"a kind above 255":             {0x80, 0x02, 1, 1, 0},
		"an attempt above the maximum": {1, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0},
		"a length past the end":        {1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		if _, err := decodeBlock(t, block); err == nil {
			t.Errorf("%s was decoded without an error", name)
		}
	}
}

// Encoding the entries decoded from any bytes and decoding them again gives the same entries.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendBlock(nil, []job.Entry{{Kind: job.KindText, Attempt: 1, Events: 1, Data: []byte("data")}, {Kind: job.KindJSON, Attempt: 1, Events: 1}}))
	f.Add([]byte{0x81, 0x00, 1, 1, 0})
	f.Fuzz(func(t *testing.T, block []byte) {
		entries, err := decodeBlock(t, block)
		if err != nil {
			return
		}
		again, err := decodeBlock(t, appendBlock(nil, entries))
		if err != nil || !reflect.DeepEqual(again, entries) {
			t.Errorf("read %+v, then %+v, %v", entries, again, err)
		}
	})
}

func BenchmarkReadBlock(b *testing.B) {
	var block []byte
	for len(block) < fullBlock {
		block = appendBlock(block, []job.Entry{{Kind: job.KindText, Attempt: 1, Events: 1, Data: []byte(" word")}})
	}
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		p := &outputPage{bytesLeft: 1 << 20}
		if err := p.addBlock(block, 1000); err != nil {
			b.Fatal(err)
		}
	}
}
