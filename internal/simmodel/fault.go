package simmodel

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is a way in which real model servers behave: one of the constants, or an HTTP status from
// "400" to "599". Some are failures; after others the answer is complete, and a client should
// read it.
type Fault string

// The faults. A mid-stream fault happens after [Options.FaultAfter] tokens, or after half of
// an answer that is not streamed.
const (
	// Nothing, or something else instead of an answer.
	Hang         Fault = "hang"
	Close        Fault = "close"
	WrongType    Fault = "wrong-content-type"
	IgnoreStream Fault = "ignore-stream"

	// Errors.
	Quota           Fault = "quota"
	NoRetry         Fault = "no-retry"
	WaitInMessage   Fault = "wait-in-message"
	WaitInHeaders   Fault = "wait-in-headers"
	WaitInDetails   Fault = "wait-in-details"
	DetailList      Fault = "detail-list"
	WebPage         Fault = "web-page"
	PackedError     Fault = "packed-error"
	Redirect        Fault = "redirect"
	EchoKey         Fault = "echo-key"
	NoStreamOptions Fault = "no-stream-options"
	NoStream        Fault = "no-stream"

	// In the middle of a stream.
	HangMidStream  Fault = "hang-mid-stream"
	CloseMidStream Fault = "close-mid-stream"
	EndMidStream   Fault = "end-mid-stream"
	DoneMidStream  Fault = "done-mid-stream"
	ErrorMidStream Fault = "error-mid-stream"
	ErrorEvent     Fault = "error-event"
	ErrorObject    Fault = "error-object"
	ErrorInChoice  Fault = "error-in-choice"
	FinishError    Fault = "finish-error"
	MalformedSSE   Fault = "malformed-sse"
	EnormousLine   Fault = "enormous-line"
	NestedEvent    Fault = "nested-event"
)

// faults describes every fault, in the order of --help.
var faults = []struct {
	name Fault
	does string
}{
	{Hang, "never answers"},
	{Close, "closes the connection without an answer"},
	{WrongType, "answers 200 with a web page"},
	{IgnoreStream, "answers a streamed request unstreamed"},

	{Quota, "429 for an account without credit (insufficient_quota)"},
	{NoRetry, "429 with x-should-retry: false"},
	{WaitInMessage, `429 with "try again in 1s" in its message, and no Retry-After`},
	{WaitInHeaders, "429 with x-ratelimit-reset-requests, and no Retry-After"},
	{WaitInDetails, "429 with a retryDelay in the details of its error"},
	{DetailList, "422 with a list of details instead of an error"},
	{WebPage, "502 with the web page of a proxy"},
	{PackedError, "400 with a body packed by gzip"},
	{Redirect, "307 to another host"},
	{EchoKey, "401 that repeats the key"},
	{NoStreamOptions, "400 for a request with stream_options"},
	{NoStream, "400 for a streamed request"},

	{HangMidStream, "sends nothing more and keeps the connection open"},
	{CloseMidStream, "breaks the connection"},
	{EndMidStream, "ends the answer as if it were complete"},
	{DoneMidStream, "ends the answer with [DONE], and without a finish reason"},
	{ErrorMidStream, "sends an error and ends"},
	{ErrorEvent, "sends an event named error, and goes on"},
	{ErrorObject, `sends an object of the kind "error", and goes on`},
	{ErrorInChoice, "sends an error inside a choice, and goes on"},
	{FinishError, `ends with the finish reason "error"`},
	{MalformedSSE, "sends an event that is not JSON"},
	{EnormousLine, "sends one line of 32 MiB"},
	{NestedEvent, "sends an event of 10,000 levels"},

	{EmptyDeltas, "sends an empty delta before each token"},
	{SingleNewlines, "has no blank lines between events"},
	{NoLastBlank, "lacks the end of its last line"},
	{EmptyData, "sends events without data"},
	{ByteOrderMark, "begins with a byte order mark"},
	{CarriageReturns, "ends its lines with carriage returns"},
	{ChunkPerLine, `sends a chunk per line, without "data:"`},
	{PackedStream, "packs the stream by gzip, unasked"},
	{StreamAsJSON, "calls its stream application/json"},
	{OddTypes, "writes created as a string, id as a number, and NaN"},
	{TextParts, "sends its text as a list of parts"},
	{OtherFields, "sends citations, audio, annotations, and its usage in a choice"},
	{HugeUsage, "sends a usage of 1 MB"},
	{LongReasoning, "sends 50,000 pieces of reasoning before its answer"},
	{Logprobs, "sends log probabilities"},
	{LargeEvent, "sends a picture of 3 MiB in one event"},
	{CutCharacters, "cuts characters between chunks"},
	{ToolCalls, "calls two tools"},
	{ToolsAtZero, "calls two tools, both at index 0"},
	{ToolsNoIndex, "calls two tools, without an index and with ids only at first"},
	{ToolsMixed, "calls two tools at the same time, by their ids"},
	{ToolsRepeat, "calls two tools, and repeats id, type and name in each piece"},
}

// Faults lists the named faults.
func Faults() []Fault {
	names := make([]Fault, 0, len(faults))
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// Does returns what a named fault does.
func (f Fault) Does() string {
	for _, known := range faults {
		if known.name == f {
			return known.does
		}
	}
	return ""
}

// ParseFault parses the name of a fault. The empty name is no fault.
func ParseFault(name string) (Fault, error) {
	f := Fault(name)
	if f == "" || f.httpStatus() != 0 || f.Does() != "" {
		return f, nil
	}
	var names []string
	for _, known := range faults {
		names = append(names, string(known.name))
	}
	return "", fmt.Errorf("there is no fault %.40q: there are 400 to 599, %s", name, strings.Join(names, ", "))
}

// httpStatus returns the HTTP status of the fault; 0 for a named fault.
func (f Fault) httpStatus() int {
	status, err := strconv.Atoi(string(f))
	if err != nil || len(f) != 3 || status < 400 || status > 599 {
		return 0
	}
	return status
}

// failInstead makes a fault that replaces the whole answer. It returns false if the request has
// none.
func (c *call) failInstead() bool {
	wait := c.options.RetryAfter
	switch f := c.options.Fault; f {
	case Hang:
		<-c.ctx.Done()
	case Close:
		panic(http.ErrAbortHandler)
	case WrongType:
		c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = c.w.Write([]byte("<!doctype html><title>Welcome</title><p>This is no model."))
	case Quota:
		c.refuse(http.StatusTooManyRequests, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota")
	case NoRetry:
		c.w.Header().Set("X-Should-Retry", "false")
		c.refuse(http.StatusTooManyRequests, "This will not get better.", "rate_limit_error", "rate_limit_exceeded")
	case WaitInMessage:
		c.refuse(http.StatusTooManyRequests, fmt.Sprintf("Rate limit reached for requests. Please try again in %s.", wait), "requests", "rate_limit_exceeded")
	case WaitInHeaders:
		c.w.Header().Set("X-Ratelimit-Remaining-Requests", "0")
		c.w.Header().Set("X-Ratelimit-Reset-Requests", wait.String())
		c.w.Header().Set("X-Ratelimit-Remaining-Tokens", "149984")
		c.w.Header().Set("X-Ratelimit-Reset-Tokens", "6h0m0s")
		c.refuse(http.StatusTooManyRequests, "Rate limit reached for requests.", "requests", "rate_limit_exceeded")
	case WaitInDetails:
		writeJSON(c.w, http.StatusTooManyRequests, []any{map[string]any{"error": map[string]any{
			"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota.",
			"details": []any{map[string]string{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": fmt.Sprint(wait.Seconds()) + "s"}},
		}}})
	case DetailList:
		writeJSON(c.w, http.StatusUnprocessableEntity, map[string]any{"detail": []any{
			map[string]any{"loc": []any{"body", "messages", 0, "content"}, "msg": "field required", "type": "missing"}}})
	case WebPage:
		c.w.Header().Set("Content-Type", "text/html")
		c.w.WriteHeader(http.StatusBadGateway)
		_, _ = c.w.Write([]byte("<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center><hr><center>a proxy</center></body>\r\n</html>\r\n"))
	case PackedError:
		c.writePackedError()
	case Redirect:
		c.w.Header().Set("Location", "http://elsewhere.invalid/v1/chat/completions")
		c.w.WriteHeader(http.StatusTemporaryRedirect)
	case EchoKey:
		c.refuse(http.StatusUnauthorized, "Incorrect API key provided: "+strings.TrimPrefix(c.authorization, "Bearer "), "invalid_request_error", "invalid_api_key")
	case NoStreamOptions:
		if !c.request.hasStreamOptions {
			return false
		}
		c.refuse(http.StatusBadRequest, "Unrecognized request argument supplied: stream_options", "invalid_request_error", "")
	case NoStream:
		if !c.request.Stream {
			return false
		}
		writeJSON(c.w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": "Your organization must be verified to stream this model.",
			"type": "invalid_request_error", "param": "stream", "code": "unsupported_value"}})
	default:
		return c.failWithStatus()
	}
	return true
}

func (c *call) failWithStatus() bool {
	status := c.options.Fault.httpStatus()
	if status == 0 {
		return false
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		setRetryAfter(c.w.Header(), c.options.RetryAfter)
	}
	writeError(c.w, status, fmt.Sprintf("the simulated model was told to answer %d (%s)", status, http.StatusText(status)))
	return true
}

// refuse answers with an error object that has a type and a code.
func (c *call) refuse(status int, message, kind, code string) {
	writeJSON(c.w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": code}})
}

// failMidStream makes a mid-stream fault. It returns false if the request has none, and then the
// answer continues.
func (c *call) failMidStream() bool {
	switch c.options.Fault {
	case HangMidStream:
		<-c.ctx.Done()
	case CloseMidStream:
		panic(http.ErrAbortHandler)
	case EndMidStream:
	case DoneMidStream:
		c.write([]byte("data: [DONE]\n\n"))
	case ErrorMidStream:
		c.writeEvent(errorBody(http.StatusInternalServerError, "the simulated model was told to fail here"))
	case ErrorEvent:
		c.write([]byte("event: error\ndata: {\"message\":\"the simulated model was told to fail here\"}\n\n"))
		return false
	case ErrorObject:
		c.writeEvent(map[string]any{"object": "error", "message": "the simulated model was told to fail here", "type": "InternalServerError", "code": 500})
		return false
	case ErrorInChoice:
		c.writeEvent(c.makeObject("chat.completion.chunk", []any{map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": nil,
			"error": map[string]any{"code": 502, "message": "the simulated model was told to fail here"}}}, nil))
		return false
	case FinishError:
		c.writeChunk(map[string]any{}, "error")
		c.write([]byte("data: [DONE]\n\n"))
	case MalformedSSE:
		c.write([]byte("data: {\"choices\": [{\"delta\"\n\n"))
	case EnormousLine:
		c.writeEnormousLine()
	case NestedEvent:
		const levels = 10_000
		c.write([]byte(`data: {"choices":[{"index":0,"delta":{"content":"x","a":` + strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels) + "}}]}\n\n"))
	default:
		return false
	}
	return true
}

// writeEnormousLine writes the line in parts, so that this server does not need the memory for
// all of it.
func (c *call) writeEnormousLine() {
	c.write([]byte("data: "))
	piece := []byte(strings.Repeat("x", 64<<10))
	for range 512 {
		if !c.write(piece) {
			return
		}
	}
	c.write([]byte("\n\n"))
}

// setRetryAfter sets the headers that tell a client how long to wait.
func setRetryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	h.Set("Retry-After-Ms", strconv.FormatInt(d.Milliseconds(), 10))
}
