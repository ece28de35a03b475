package simmodel

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Fault is a simulated failure: one of the constants, or an HTTP status from "400" to "599".
type Fault string

// The faults. A mid-stream fault happens after [Options.FaultAfter] tokens, or after half of
// an answer that is not streamed.
const (
	Hang           Fault = "hang"               // never answers
	Close          Fault = "close"              // closes the connection without an answer
	HangMidStream  Fault = "hang-mid-stream"    // sends nothing more and keeps the connection open
	CloseMidStream Fault = "close-mid-stream"   // breaks the connection
	EndMidStream   Fault = "end-mid-stream"     // ends the answer as if it were complete
	ErrorMidStream Fault = "error-mid-stream"   // sends an error object and ends
	MalformedSSE   Fault = "malformed-sse"      // sends an event that is not JSON
	EnormousLine   Fault = "enormous-line"      // sends one line of 32 MiB
	WrongType      Fault = "wrong-content-type" // answers 200 with a web page
	IgnoreStream   Fault = "ignore-stream"      // answers a streamed request unstreamed
)

// Faults lists the named faults.
func Faults() []Fault {
	return []Fault{Hang, Close, HangMidStream, CloseMidStream, EndMidStream, ErrorMidStream,
		MalformedSSE, EnormousLine, WrongType, IgnoreStream}
}

// ParseFault parses the name of a fault. The empty name is no fault.
func ParseFault(name string) (Fault, error) {
	f := Fault(name)
	if f == "" || f.httpStatus() != 0 {
		return f, nil
	}
	names := make([]string, 0, len(Faults()))
	for _, known := range Faults() {
		if f == known {
			return f, nil
		}
		names = append(names, string(known))
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
	f := c.options.Fault
	switch {
	case f == Hang:
		<-c.ctx.Done()
	case f == Close:
		panic(http.ErrAbortHandler)
	case f == WrongType:
		c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = c.w.Write([]byte("<!doctype html><title>Welcome</title><p>This is no model."))
	case f.httpStatus() != 0:
		if s := f.httpStatus(); s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable {
			setRetryAfter(c.w.Header(), c.options.RetryAfter)
		}
		writeError(c.w, f.httpStatus(), fmt.Sprintf("the simulated model was told to answer %s (%s)", f, http.StatusText(f.httpStatus())))
	default:
		return false
	}
	return true
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
	case ErrorMidStream:
		c.writeEvent(errorBody(http.StatusInternalServerError, "the simulated model was told to fail here"))
	case MalformedSSE:
		c.write([]byte("data: {\"choices\": [{\"delta\"\n\n"))
	case EnormousLine:
		c.writeEnormousLine()
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
