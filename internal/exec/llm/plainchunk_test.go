package llm

import "testing"

// firstChunk is the first chunk of a stream. Later chunks can be plain.
const firstChunk = `{"id":"c1","created":5,"model":"mm","system_fingerprint":"fp","choices":[{"index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"x":[1,-0.5,true]},"delta":{"role":"assistant","content":"","refusal":"","reasoning":"x"}}]}`

// plainChunks are typical chunks of servers for one token, with their text.
var plainChunks = map[string]string{
	`{"choices":[{"delta":{"content":"","reasoning":"a"}}]}`:                                                                                     "a",
	`{"choices":[{"delta":{"reasoning":"a","content":null}}]}`:                                                                                   "a",
	`{"id":"c1","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`: "a",
	`{"choices":[{"delta":{"content":"a"},"logprobs":null,"index":0}],"created":-6.5,"usage":null,"model":"other","id":""}`:                      "a",
	`{"choices": [{"index": 0, "delta": {"role": "assistant", "content": " b", "refusal": null, "tool_calls": null}, "finish_reason": null}]}`:   " b",
	`{"id":"c1","system_fingerprint":"fp","service_tier":null,"choices":[{"index":0,"delta":{"refusal":"","content":"a"}}],"obfuscation":"xYz"}`: "a",
	`{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"x":[1,-0.5,true]},"delta":{"content":"a"}}]}`:           "a",
	"\n{\"choices\":\t[{\"delta\":{\"content\":\"\\\"\\u00e9\\ud83d\\ude00\\né\"}}]}\r\n":                                                        "\"é😀\né",
}

// otherChunks look like plain ones, but contain more or are invalid.
var otherChunks = []string{
	`{"choices":[{"delta":{"content":"\ud800é"}}]}`, "{\"choices\":[{\"delta\":{\"content\":\"a\xff\"}}]}",
	"", "null", "{}", "[DONE]", `{"choices":[]}`, `{"choices":null}`, `{"error":{"code":429}}`, `{"choices":[{"delta":null}]}`,
	`{"choices":[{"delta":{"content":"a"}}],"error":"x"}`, `{"choices":[{"delta":{"content":"a"}}],"Error":"x"}`, `{"choices":[{"delta":{"content":"a"}}],"usage":{"total_tokens":3}}`,
	`{"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":0.0,"delta":{"content":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`, `{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[]}}]}`,
	`{"choices":[{"delta":{"content":"a","reasoning":"x"}}]}`, `{"choices":[{"delta":{"content":"a","thinking":""}}]}`, `{"choices":[{"delta":{"content":"a","content":null}}]}`, `{"choices":[{"delta":{"reasoning":"a","reasoning":""}}]}`, `{"choices":[{"delta":{"content":"a","role":"user"}}]}`,
	`{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0}]}}]}`, `{"choices":[{"delta":{"content":["a"]}}]}`, `{"choices":[{"delta":{"content":null}}]}`, `{"choices":[{"delta":{"content":""}}]}`,
	`{"choices":[{"message":{"content":"a"}}]}`, `{"choices":[{"delta":{"content":"a"},"message":{"content":"b"}}]}`, `{"choices":[{"delta":{"content":"a"},"Message":{"content":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a","content":"b"}}]}`, `{"choices":[{"delta":{"content":"a"},"delta":{"content":"b"}}]}`, `{"choices":[{"delta":{"content":"a"},"delta":null}]}`,
	`{"choices":[{"delta":{"content":"a"}}],"choices":[]}`, `{"choices":[{"delta":{"content":"a"}}],"CHOICES":[{}]}`, `{"choices":[{"delta":{"content":"a"}}],"choice\u0073":[{}]}`,
	`{"choices":[{"delta":{"content":"a","content\u0020":"b"}}]}`, `{"choices":[{"delta":{"content":"a","c\u006fntent":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a"}}],"system_fingerprint":"fp2"}`, `{"choices":[{"delta":{"content":"a"}}],"service_tier":"flex"}`,
	`{"choices":[{"delta":{"content":"a"}}],"id":5}`, `{"choices":[{"delta":{"content":"a"}}],"created":"5"}`, `{"choices":[{"delta":{"content":"a"}}],"created":1e999}`,
	`{"choices":[{"delta":{"content":"a"}}],"x":01}`, `{"choices":[{"delta":{"content":"a"}}],"x":1.}`, `{"choices":[{"delta":{"content":"a"}}],"x":-}`, `{"choices":[{"delta":{"content":"a"}}],"x":.5}`,
	`{"choices":[{"delta":{"content":"a"}}],"x":nul}`, `{"choices":[{"delta":{"content":"a"}}],"x":[1,]}`, `{"choices":[{"delta":{"content":"a"}}],"x":{"a":1,}}`, `{"choices":[{"delta":{"content":"a"}}],"x":"\q"}`,
	`{"choices":[{"delta":{"content":"a\q"}}]}`, "{\"choices\":[{\"delta\":{\"content\":\"a\n\"}}]}", `{"choices":[{"delta":{"content":"a\"}}]}`, `{"choices":[{"delta":{"content":"a"}}]} x`, `{"choices":[{"delta":{"content":"a"}}]`,
}

// completionAfter returns a completion to which the chunk was added, if that is valid.
func completionAfter(first string) (c completion) {
	if k, err := decodeChunk([]byte(first)); err == nil {
		_, _ = c.add(k, true)
	}
	return c
}

func TestPlainChunksAreParsed(t *testing.T) {
	t.Parallel()
	for data, want := range plainChunks {
		c := completionAfter(firstChunk)
		if _, _, text, ok := c.parsePlain([]byte(data)); !ok || text != want {
			t.Errorf("%s: %q, %v; want %q", data, text, ok, want)
		}
		checkAgainstDecoder(t, firstChunk, data)
	}
}

func TestOtherChunksAreNotPlain(t *testing.T) {
	t.Parallel()
	for _, data := range otherChunks {
		c := completionAfter(firstChunk)
		if _, _, text, ok := c.parsePlain([]byte(data)); ok {
			t.Errorf("%s: it was parsed as plain, with the text %q", data, text)
		}
	}
}

// No chunk is plain before the first chunk of its choice.
func TestFirstChunkIsNotPlain(t *testing.T) {
	t.Parallel()
	for _, first := range []string{``, `{}`, `{"choices":[{}]}`, `{"id":"c1","created":5,"choices":[{"delta":{"content":""}}]}`, `{"id":"c1","created":5,"model":"mm","choices":[{"delta":{"content":[]}}]}`} {
		c := completionAfter(first)
		if _, _, _, ok := c.parsePlain([]byte(`{"id":"c1","created":5,"model":"mm","choices":[{"delta":{"content":"a"}}]}`)); ok {
			t.Errorf("after %s it was parsed as plain", first)
		}
	}
}

// FuzzPlain checks that encoding/json reads every plain chunk with the same result.
func FuzzPlain(f *testing.F) {
	for data := range plainChunks {
		f.Add(firstChunk, data)
		f.Add(data, data)
	}
	for _, data := range otherChunks {
		f.Add(firstChunk, data)
		f.Add(data, delta(`"content":"x"`))
	}
	f.Fuzz(func(t *testing.T, first, second string) { checkAgainstDecoder(t, first, second) })
}

func checkAgainstDecoder(t *testing.T, first, second string) {
	t.Helper()
	got, want := completionAfter(first), completionAfter(first)
	name, old, text, ok := got.parsePlain([]byte(second))
	if !ok {
		return
	}
	got.addPlain(old, text)
	k, err := decodeChunk([]byte(second))
	if err != nil {
		t.Fatalf("after %s, %q is no chunk: %v", first, second, err)
	}
	a, err := want.add(k, true)
	if a.piece != nil && a.text == "" && a.piece.choice == 0 && a.piece.member == string(name) {
		a.text = string(a.piece.text)
	} else if string(name) != "content" {
		t.Fatalf("after %s, %q adds %v, but was parsed as a piece of %s", first, second, a, name)
	}
	if err != nil || k.failure() != nil || k.usageAnywhere() != nil || a.event != nil || a.text != text {
		t.Fatalf("after %s, %q has the text %q and the event %s, but was parsed as plain text %q", first, second, a.text, a.event, text)
	}
	if a, b := string(got.encode()), string(want.encode()); a != b {
		t.Errorf("after %s, %q gives\n%s\nwant\n%s", first, second, a, b)
	}
}
