package client

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
)

func readEvents(text string) (events []sseEvent, err error) {
	r := newSSEReader(strings.NewReader(text), func() {})
	for {
		e, err := r.next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule, text string
		want       []sseEvent
	}{
		{"an empty line ends the fields of an event", "id: 1\nevent: a\ndata: x\n\n", []sseEvent{{"1", "a", []byte("x")}}},
		{"lines of data are joined", "data: x\ndata:y\n\n", []sseEvent{{"", "", []byte("x\ny")}}},
		{"an event may have empty data", "data\n\n", []sseEvent{{"", "", []byte{}}}},
		{"only the first space is removed", "data:  x\n\n", []sseEvent{{"", "", []byte(" x")}}},
		{"comments and unknown fields are ignored", ": c\nretry: 3\nfoo: 1\ndata: x\n\n", []sseEvent{{"", "", []byte("x")}}},
		{"an event without data is dropped with its fields", "event: a\n\ndata: x\n\n", []sseEvent{{"", "", []byte("x")}}},
		{"an incomplete event is dropped", "data: x\n\ndata: y\n", []sseEvent{{"", "", []byte("x")}}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := readEvents(tt.text)
			if err != io.EOF || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("read %q and %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestSSEReaderLimitsEventSize(t *testing.T) {
	if testing.Short() {
		t.Skip("sends an event of 16 MiB")
	}
	t.Parallel()
	r := newSSEReader(io.MultiReader(strings.NewReader("data: "), endlessReader{}), func() {})
	if _, err := r.next(); err != errEventTooLarge {
		t.Errorf("one line: %v", err)
	}
	r = newSSEReader(endlessReader("data: x\n"), func() {})
	if _, err := r.next(); err != errEventTooLarge {
		t.Errorf("many lines: %v", err)
	}
}

// endlessReader repeats its bytes for ever.
type endlessReader []byte

func (e endlessReader) Read(p []byte) (int, error) {
	if len(e) == 0 {
		e = endlessReader("x")
	}
	n := 0
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func FuzzServerSentEvents(f *testing.F) {
	f.Add([]byte(eventStream(0, 3)))
	f.Add([]byte("data\r\n\r\n:\n\nid"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newSSEReader(bytes.NewReader(text), func() {})
		for {
			e, err := r.next()
			if err != nil {
				return
			}
			if len(e.data) > len(text) || e.data == nil {
				t.Fatalf("an event of %d bytes was read from %d bytes", len(e.data), len(text))
			}
		}
	})
}
