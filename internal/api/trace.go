package api

import (
	"net/http"
	"strings"
)

// traceparentHeader is as net/http spells it.
const traceparentHeader = "Traceparent"

// traceparentLen is the length of a traceparent of version 00.
const traceparentLen = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

// Traceparent returns the request's traceparent (W3C Trace Context) in the format of
// version 00. A job that the request submits is a child of that span. It returns "" where
// the header is missing or invalid, which the standard says to ignore. Where the server
// traces requests, its middleware has put its own span into the header before.
func Traceparent(r *http.Request) string {
	values := r.Header[traceparentHeader]
	if len(values) != 1 || len(values[0]) < traceparentLen {
		return ""
	}
	text, more := values[0][:traceparentLen], values[0][traceparentLen:]
	parts := strings.Split(text, "-")
	if len(parts) != 4 || !isHex(parts[0], 2) || !isHex(parts[1], 32) || !isHex(parts[2], 16) || !isHex(parts[3], 2) {
		return ""
	}
	if allZeros(parts[1]) || allZeros(parts[2]) || parts[0] == "ff" {
		return ""
	}
	if parts[0] == "00" {
		if more != "" {
			return ""
		}
		return text
	}
	if more != "" && more[0] != '-' {
		return ""
	}
	// The standard lets us read only the ids and the sampled flag of a later version.
	sampled := "00"
	if strings.IndexByte("13579bdf", parts[3][1]) >= 0 {
		sampled = "01"
	}
	return "00-" + parts[1] + "-" + parts[2] + "-" + sampled
}

func isHex(text string, length int) bool {
	return len(text) == length && strings.Trim(text, "0123456789abcdef") == ""
}

func allZeros(text string) bool { return strings.Trim(text, "0") == "" }
