package llm

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func readAll(stream io.Reader) (data []string, err error) {
	for in := newEventReader(stream, func() {}); ; {
		event, err := in.next()
		if err != nil {
			return data, err
		}
		data = append(data, string(event))
	}
}

func TestEventsFollowTheStandard(t *testing.T) {
	t.Parallel()
	for stream, want := range map[string][]string{
		"":                                   nil,
		"data: a\n\n":                        {"a"},
		"data:a\n\ndata:  b\n\n":             {"a", " b"},
		"data: a\r\n\r\ndata: b\r\n\r\n":     {"a", "b"},
		"data: a\r\rdata: b\r\r":             {"a", "b"},
		"data: a\n\r\ndata: b\r\n\n":         {"a", "b"},
		"data: a\ndata: b\ndata\n\n":         {"a\nb\n"},
		"data:\n\n":                          {""},
		": comment\n\n:\n\ndata: a\n\n":      {"a"},
		"event: x\nid: 1\nretry: 5\n\n":      nil,
		"event: x\ndata: a\nid: 1\n\n\n\n":   {"a"},
		"\ufeffdata: a\n\n\ufeffdata: b\n\n": {"a"},
		"data: cut off":                      nil,
		"data: a\n\ndata: cut off\n":         {"a"},
		"database: a\n\n":                    nil,
		// What the standard does not say.
		"data: {\"a\":1}\ndata: {\"b\":2}\ndata: [DONE]\n": {`{"a":1}`, `{"b":2}`, "[DONE]"},
		"data: {\"a\":1}":                         {`{"a":1}`},
		"data: {\ndata: \"a\":\"}\"\ndata: }\n\n": {"{\n\"a\":\"}\"\n}"},
		"{\n\n\"a\":\n1}":                         {"{\n\n\"a\":\n1}"},
		"{\"a\":1}\n{\"b\":2}\n":                  {`{"a":1}`, `{"b":2}`},
		": c\n\n{\"error\":1}":                    {`{"error":1}`},
		"event: error\n\n":                        {""},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(stream), "byte by byte": iotest.OneByteReader(strings.NewReader(stream)),
		} {
			if got, err := readAll(r); !errors.Is(err, io.EOF) || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %q: %q, %v; want %q", name, stream, got, err, want)
			}
		}
	}
}

// An event may end at any place of the read buffer.
func TestEventsOfAllLengths(t *testing.T) {
	t.Parallel()
	var stream strings.Builder
	var want []string
	for n := range 3 * readBuffer / 7 {
		want = append(want, strings.Repeat("x", 7*n))
		stream.WriteString("data: " + want[n] + "\n\n")
	}
	if got, err := readAll(strings.NewReader(stream.String())); !errors.Is(err, io.EOF) || !reflect.DeepEqual(got, want) {
		t.Errorf("%d events, %v; want the %d that were sent", len(got), err, len(want))
	}
}

func TestLineAndEventAreLimited(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 64 MiB")
	}
	t.Parallel()
	fits := strings.Repeat("x", maxEvent-len("data: "))
	if got, err := readAll(strings.NewReader("data: " + fits + "\n\n")); !errors.Is(err, io.EOF) || len(got) != 1 {
		t.Errorf("the longest line: %d events, %v", len(got), err)
	}
	for name, stream := range map[string]string{
		"a line":    "data: " + fits + "xx\n\n",
		"a comment": ":" + fits + strings.Repeat("x", 10),
		"an event":  strings.Repeat("data: "+fits[:100_000]+"\n", 170) + "\n",
	} {
		if _, err := readAll(strings.NewReader(stream)); !errors.Is(err, errEventTooLarge) {
			t.Errorf("%s past the limit: %v", name, err)
		}
	}
}

// FuzzEvents checks that the events of a stream do not depend on how it is split into reads,
// that none contains a line end of the stream, and that none exceeds the limit.
func FuzzEvents(f *testing.F) {
	for _, seed := range []string{
		"data: a\n\n", "data: a\r\ndata: b\r\n\r\n", ":c\rdata\r\r", "\ufeffdata:\n\n", "event: e\ndata: {\"error\":1}\n\n", "data: [DONE]\n\n\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		want, err := readAll(strings.NewReader(stream))
		got, errAgain := readAll(iotest.OneByteReader(strings.NewReader(stream)))
		if !reflect.DeepEqual(got, want) || (err == nil) != (errAgain == nil) {
			t.Fatalf("%q is %q whole and %q byte by byte", stream, want, got)
		}
		for _, event := range want {
			if strings.Contains(event, "\r") || len(event) > maxEvent {
				t.Errorf("%q has the event %q", stream, event)
			}
		}
	})
}
