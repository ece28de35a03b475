package llm

import (
	"encoding/json"
	"testing"
)

// opening is the first chunk of a stream, after which the others are plain.
const opening = `{"id":"c1","created":5,"model":"mm","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":""}}]}`

// What servers send for a token, and the text of it.
var plainChunks = map[string]string{
	`{"id":"c1","object":"chat.completion.chunk","created":5,"model":"mm","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`: "a",
	`{"choices":[{"delta":{"content":"a"},"logprobs":null,"index":0}],"created":-6.5,"usage":null,"model":"other","id":""}`:                      "a",
	`{"choices": [{"index": 0, "delta": {"role": "assistant", "content": " b", "refusal": null, "tool_calls": null}, "finish_reason": null}]}`:   " b",
	`{"id":"c1","system_fingerprint":"fp","service_tier":null,"choices":[{"index":0,"delta":{"refusal":"","content":"a"}}],"obfuscation":"xYz"}`: "a",
	`{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"x":[1,-0.5,true]},"delta":{"content":"a"}}]}`:           "a",
	"\n{\"choices\":\t[{\"delta\":{\"content\":\"\\\"\\u00e9\\ud83d\\ude00\\n\\ud800é\"}}]}\r\n":                                                 "\"é😀\n\ufffdé",
	"{\"choices\":[{\"delta\":{\"content\":\"a\xff\"}}]}":                                                                                        "a\ufffd",
}

// What looks like it and is not: it says more, or is wrong.
var otherChunks = []string{
	opening, "", "null", "{}", "[DONE]", `{"choices":[]}`, `{"choices":null}`, `{"error":{"code":429}}`, `{"choices":[{"delta":null}]}`,
	`{"choices":[{"delta":{"content":"a"}}],"error":"x"}`, `{"choices":[{"delta":{"content":"a"}}],"Error":"x"}`, `{"choices":[{"delta":{"content":"a"}}],"usage":{"total_tokens":3}}`,
	`{"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":0.0,"delta":{"content":"b"}}]}`,
	`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`, `{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[]}}]}`,
	`{"choices":[{"delta":{"content":"a","reasoning":"x"}}]}`, `{"choices":[{"delta":{"content":"a","reasoning":""}}]}`, `{"choices":[{"delta":{"content":"a","role":"user"}}]}`,
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

// begun is a completion that has the chunk, if that is one.
func begun(first string) (c completion) {
	var k chunk
	if json.Unmarshal([]byte(first), &k) == nil {
		c.add(k)
	}
	return c
}

func TestAChunkOfATokenIsPlain(t *testing.T) {
	for data, want := range plainChunks {
		c := begun(opening)
		if text, ok := c.plain([]byte(data)); !ok || text != want {
			t.Errorf("%s: %q, %v; want %q", data, text, ok, want)
		}
		asDecoded(t, opening, data)
	}
}

func TestAChunkThatSaysMoreIsNotPlain(t *testing.T) {
	for _, data := range otherChunks {
		c := begun(opening)
		if text, ok := c.plain([]byte(data)); ok {
			t.Errorf("%s: it was taken for plain, and says %q", data, text)
		}
	}
}

// Until a stream has named itself and begun its text, no chunk is plain.
func TestTheBeginningOfAStreamIsNotPlain(t *testing.T) {
	for _, first := range []string{``, `{}`, `{"choices":[{}]}`, `{"id":"c1","created":5,"choices":[{"delta":{"content":""}}]}`, `{"id":"c1","created":5,"model":"mm","choices":[{"delta":{"content":[]}}]}`} {
		c := begun(first)
		if _, ok := c.plain([]byte(`{"id":"c1","created":5,"model":"mm","choices":[{"delta":{"content":"a"}}]}`)); ok {
			t.Errorf("after %s it was taken for plain", first)
		}
	}
}

// A chunk that is taken for plain is one to encoding/json too, and comes to the same.
func FuzzPlain(f *testing.F) {
	for data := range plainChunks {
		f.Add(opening, data)
		f.Add(data, data)
	}
	for _, data := range otherChunks {
		f.Add(opening, data)
		f.Add(data, delta(`"content":"x"`))
	}
	f.Fuzz(func(t *testing.T, first, second string) { asDecoded(t, first, second) })
}

func asDecoded(t *testing.T, first, second string) {
	t.Helper()
	got, want := begun(first), begun(first)
	text, ok := got.plain([]byte(second))
	if !ok {
		return
	}
	got.addText(text)
	var k chunk
	if err := json.Unmarshal([]byte(second), &k); err != nil {
		t.Fatalf("after %s, %q is no chunk: %v", first, second, err)
	}
	if !isEmpty(k.Error) || !isEmpty(k.Usage) || k.odd() || k.text() != text {
		t.Fatalf("after %s, %q says %q and more; it was taken for %q", first, second, k.text(), text)
	}
	want.add(k)
	if a, b := string(got.encode()), string(want.encode()); a != b || got.finished() != want.finished() {
		t.Errorf("after %s, %q comes to\n%s\nwant\n%s", first, second, a, b)
	}
}
