package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Content types as header values. They are never changed.
var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
)

// WriteJSON writes v as JSON, in one write. It does not escape the characters that only
// matter inside HTML. It panics where v has no JSON; [Wrap] logs that.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Errorf("api: a response cannot be encoded as JSON: %w", err))
	}
	WriteJSONBytes(w, status, bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

// WriteJSONBytes writes a body that is JSON already. It does not keep the body.
func WriteJSONBytes(w http.ResponseWriter, status int, body []byte) {
	Write(w, status, jsonType, body)
}

// longBody is the length of the shortest body, in bytes, for which Write sets Content-Length.
// net/http sets that of a shorter one, which it buffers until the handler returns.
const longBody = 2 << 10

// Write writes a whole response: content type, length, and the body in one write. It
// ignores the error of a client that has left.
func Write(w http.ResponseWriter, status int, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	if len(body) >= longBody {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
