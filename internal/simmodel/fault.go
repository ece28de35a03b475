package simmodel

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Fault is a way to go wrong: one of the constants, or an HTTP status from "400"
// to "599" as the answer.
type Fault string

// The faults. Those in the middle of a stream happen after [Options.FaultAfter]
// tokens; in an answer that is not streamed, after half of it.
const (
	Hang           Fault = "hang"               // never answers
	Close          Fault = "close"              // closes the connection instead of an answer
	HangMidStream  Fault = "hang-mid-stream"    // says no more, and stays
	CloseMidStream Fault = "close-mid-stream"   // breaks the connection
	EndMidStream   Fault = "end-mid-stream"     // ends as if that were all
	ErrorMidStream Fault = "error-mid-stream"   // says an error, and ends
	MalformedSSE   Fault = "malformed-sse"      // says what is no JSON
	EnormousLine   Fault = "enormous-line"      // says one line of 8 MiB
	WrongType      Fault = "wrong-content-type" // answers 200 with a web page
	IgnoreStream   Fault = "ignore-stream"      // answers a streamed call with the whole answer at once
)

// Faults lists the faults that have names.
func Faults() []Fault {
	return []Fault{Hang, Close, HangMidStream, CloseMidStream, EndMidStream, ErrorMidStream,
		MalformedSSE, EnormousLine, WrongType, IgnoreStream}
}

// ParseFault reads the name of a fault; "" is none.
func ParseFault(name string) (Fault, error) {
	f := Fault(name)
	if f == "" || f.status() != 0 {
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

// status is the HTTP status that the fault stands for; 0 for the others.
func (f Fault) status() int {
	status, err := strconv.Atoi(string(f))
	if err != nil || len(f) != 3 || status < 400 || status > 599 {
		return 0
	}
	return status
}

// before lets happen what happens instead of an answer, and says whether it did.
func (c *call) before() bool {
	f := c.options.Fault
	switch {
	case f == Hang:
		<-c.ctx.Done()
	case f == Close:
		panic(http.ErrAbortHandler)
	case f == WrongType:
		c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = c.w.Write([]byte("<!doctype html><title>Welcome</title><p>This is no model."))
	case f.status() != 0:
		if s := f.status(); s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable {
			askToWait(c.w.Header(), c.options.RetryAfter)
		}
		refuse(c.w, f.status(), fmt.Sprintf("the simulated model was told to answer %s (%s)", f, http.StatusText(f.status())))
	default:
		return false
	}
	return true
}

// midway lets happen what happens in the middle of a stream, and says whether the
// stream is over with it.
func (c *call) midway() bool {
	switch c.options.Fault {
	case HangMidStream:
		<-c.ctx.Done()
	case CloseMidStream:
		panic(http.ErrAbortHandler)
	case EndMidStream:
	case ErrorMidStream:
		c.event(errorBody(http.StatusInternalServerError, "the simulated model was told to fail here"))
	case MalformedSSE:
		c.write([]byte("data: {\"choices\": [{\"delta\"\n\n"))
	case EnormousLine:
		c.enormous()
	default:
		return false
	}
	return true
}

// enormous writes the line in pieces, so that it costs its reader more than us.
func (c *call) enormous() {
	c.write([]byte("data: "))
	piece := []byte(strings.Repeat("x", 64<<10))
	for range 128 {
		if !c.write(piece) {
			return
		}
	}
	c.write([]byte("\n\n"))
}
