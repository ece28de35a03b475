package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Content types, as header values that are never changed.
var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
)

// WriteJSON answers with v as JSON, in one write. Characters that only matter
// inside HTML are not escaped.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Errorf("api: an answer that is no JSON: %w", err)) // which is logged
	}
	WriteJSONBytes(w, status, bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

// WriteJSONBytes answers with what is JSON already. The body is not kept.
func WriteJSONBytes(w http.ResponseWriter, status int, body []byte) {
	Write(w, status, jsonType, body)
}

// longBody is the size from which on we say the length of a body. The server itself
// says that of a shorter one, which it holds back until its handler is done.
const longBody = 2 << 10

// Write answers with a whole body: its type, its length, and one write. An error
// of the write is the client's leaving, which nobody needs to hear of.
func Write(w http.ResponseWriter, status int, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	if len(body) >= longBody {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
