package simmodel

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
)

// Faults after which the answer is complete, in a form that some server uses. They change streams
// only.
const (
	EmptyDeltas     Fault = "empty-deltas"
	SingleNewlines  Fault = "single-newlines"
	NoLastBlank     Fault = "no-last-blank"
	EmptyData       Fault = "empty-data"
	ByteOrderMark   Fault = "byte-order-mark"
	CarriageReturns Fault = "carriage-returns"
	ChunkPerLine    Fault = "chunk-per-line"
	PackedStream    Fault = "packed-stream"
	StreamAsJSON    Fault = "stream-as-json"
	OddTypes        Fault = "odd-types"
	TextParts       Fault = "text-parts"
	OtherFields     Fault = "other-fields"
	HugeUsage       Fault = "huge-usage"
	LongReasoning   Fault = "long-reasoning"
	Logprobs        Fault = "logprobs"
	LargeEvent      Fault = "large-event"
	CutCharacters   Fault = "cut-characters"
	ToolCalls       Fault = "tool-calls"
	ToolsAtZero     Fault = "tools-at-index-0"
	ToolsNoIndex    Fault = "tools-without-index"
	ToolsMixed      Fault = "tools-interleaved"
	ToolsRepeat     Fault = "tools-repeated"
)

// reframe returns an event in the framing of the fault.
func (c *call) reframe(event []byte) []byte {
	switch c.options.Fault {
	case SingleNewlines:
		return bytes.ReplaceAll(event, []byte("\n\n"), []byte("\n"))
	case NoLastBlank:
		if bytes.HasPrefix(event, []byte("data: [DONE]")) {
			return bytes.TrimRight(event, "\n")
		}
	case EmptyData:
		return append([]byte("data:\n\n"), event...)
	case ByteOrderMark:
		if !c.began {
			return append([]byte("\ufeff"), event...)
		}
	case CarriageReturns:
		return bytes.ReplaceAll(event, []byte("\n"), []byte("\r"))
	case ChunkPerLine:
		if bytes.HasPrefix(event, []byte("data: [DONE]")) {
			return nil
		}
		return bytes.ReplaceAll(bytes.TrimPrefix(event, []byte("data: ")), []byte("\n\n"), []byte("\n"))
	case OddTypes:
		event = bytes.Replace(event, fmt.Appendf(nil, `"created":%d`, c.startedAt.Unix()), fmt.Appendf(nil, `"created":"%d"`, c.startedAt.Unix()), 1)
		event = bytes.Replace(event, fmt.Appendf(nil, `"id":%q`, c.id), []byte(`"id":12345`), 1)
		return bytes.Replace(event, []byte(`"logprobs":null`), []byte(`"logprobs":null,"score":NaN`), 1)
	}
	return event
}

// writePackedError answers with an error that is packed, although nobody asked for that.
func (c *call) writePackedError() {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Encoding", "gzip")
	c.w.WriteHeader(http.StatusBadRequest)
	packed := gzip.NewWriter(c.w)
	_, _ = packed.Write([]byte(`{"error":{"message":"the simulated model was told to refuse this","type":"invalid_request_error"}}`))
	_ = packed.Close()
}

// writeExtras writes what comes before the tokens. It returns false if the client has gone.
func (c *call) writeExtras() bool {
	switch c.options.Fault {
	case OtherFields:
		return c.writeMembers(`"citations":["https://a.example/"],"service_tier":"flex","choices":[{"index":0,"delta":{"reasoning":"Hm.","audio":{"id":"audio_1","data":"QUJD","transcript":"A"},` +
			`"annotations":[{"type":"url_citation","url_citation":{"url":"https://a.example/"}}]},"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}]`)
	case HugeUsage:
		return c.writeMembers(`"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"trace":"` + strings.Repeat("x", 1_000_000) + `"}`)
	case LongReasoning:
		for range 50_000 {
			if !c.writeMembers(`"choices":[{"index":0,"delta":{"reasoning_content":"word "},"logprobs":null,"finish_reason":null}]`) {
				return false
			}
		}
	case LargeEvent:
		return c.writeMembers(`"choices":[{"index":0,"delta":{"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("iVBO", 3<<18) + `"}}]}}]`)
	}
	return true
}

// writeOddToken writes a token in the form of the fault. It returns false if there is none.
func (c *call) writeOddToken(quoted []byte) (wrote, isOdd bool) {
	switch c.options.Fault {
	case EmptyDeltas:
		c.writeMembers(`"choices":[{"index":0,"delta":{},"finish_reason":null}]`)
		return false, false
	case TextParts:
		return c.writeMembers(fmt.Sprintf(`"choices":[{"index":0,"delta":{"content":[{"type":"text","text":%s}]}}]`, quoted)), true
	case Logprobs:
		return c.writeMembers(fmt.Sprintf(`"choices":[{"index":0,"delta":{"content":%s},"logprobs":{"content":[{"token":%[1]s,"logprob":-0.10,"bytes":[32],"top_logprobs":[]}],"refusal":null}}]`, quoted)), true
	}
	return false, false
}

// cutPieces is the text "A smile 😀 costs 1 €." of [CutCharacters].
var cutPieces = []string{`A smile \ud83d`, `\ude00 costs 1 ` + "\xe2", "\x82", "\xac."}

// writeInstead writes an answer that is not made of tokens: tool calls, or cut characters. It
// returns false if the fault has none.
func (c *call) writeInstead() bool {
	finish := "tool_calls"
	const a, b = `"id":"call_a","type":"function"`, `"id":"call_b","type":"function"`
	var deltas []string
	calls := func(pieces ...string) {
		for _, p := range pieces {
			deltas = append(deltas, `"tool_calls":[`+p+`]`)
		}
	}
	switch c.options.Fault {
	case CutCharacters:
		finish = "stop"
		for _, piece := range cutPieces {
			deltas = append(deltas, `"content":"`+piece+`"`)
		}
	case ToolCalls:
		calls(`{"index":0,`+a+`,"function":{"name":"find","arguments":""}}`, `{"index":0,"function":{"arguments":"{\"q\":"}}`, `{"index":0,"function":{"arguments":"1}"}}`,
			`{"index":1,`+b+`,"function":{"name":"stop","arguments":""}}`, `{"index":1,"function":{"arguments":"{}"}}`)
	case ToolsAtZero:
		calls(`{"index":0,`+a+`,"function":{"name":"find","arguments":"{\"q\":1}"}}`, `{"index":0,`+b+`,"function":{"name":"stop","arguments":"{}"}}`)
	case ToolsNoIndex:
		calls(`{`+a+`,"function":{"name":"find","arguments":""}}`, `{"function":{"arguments":"{\"q\":"}}`, `{"function":{"arguments":"1}"}}`,
			`{`+b+`,"function":{"name":"stop","arguments":""}}`, `{"function":{"arguments":"{}"}}`)
	case ToolsMixed:
		calls(`{`+a+`,"function":{"name":"find","arguments":"{\"q\""}}`, `{`+b+`,"function":{"name":"st","arguments":""}}`,
			`{"id":"call_a","function":{"arguments":":1}"}}`, `{"id":"call_b","function":{"name":"op","arguments":"{}"}}`)
	case ToolsRepeat:
		calls(`{"index":0,`+a+`,"function":{"name":"find","arguments":"{\"q\""}}`, `{"index":0,`+a+`,"function":{"name":"find","arguments":":1}"}}`,
			`{"index":1,`+b+`,"function":{"name":"stop","arguments":"{"}}`, `{"index":1,`+b+`,"function":{"name":"stop","arguments":"}"}}`)
	default:
		return false
	}
	for _, delta := range deltas {
		if !c.writeMembers(`"choices":[{"index":0,"delta":{` + delta + `},"finish_reason":null}]`) {
			return true
		}
	}
	c.finishReason = finish
	c.writeEnd()
	return true
}

// writeMembers sends a chunk with these members.
func (c *call) writeMembers(members string) bool {
	return c.write(fmt.Appendf(nil, `data: {"id":%q,"object":"chat.completion.chunk","created":%d,"model":%q,%s}`+"\n\n", c.id, c.startedAt.Unix(), c.request.Model, members))
}
