package llm

import (
	"net"
	"net/http"
	"time"
)

// newTransport returns a transport with limits against misbehaving servers, except for the size
// of answers. It requests no compression, because a compressed stream arrives in bursts. The
// write buffer is small because thousands of calls may be open; larger requests bypass it.
//
// A connection can die without a word: a NAT or a relay forgets it. So silent connections are
// probed. One that does not answer within about half a minute is closed, its calls fail, and the
// next attempt dials anew. For HTTP/2 that is a ping; for HTTP/1.1, keep-alive probes and a limit
// on unacknowledged data.
func newTransport() *http.Transport {
	dialer := &net.Dialer{
		Timeout:         10 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		ControlContext:  limitUnacknowledged,
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: pingAfter + pingTimeout},
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
		WriteBufferSize:        1 << 10,
	}
}

// unacknowledgedLimit is generous: a server that is busy may leave a large request unread.
const unacknowledgedLimit = time.Minute

// When an HTTP/2 connection from which nothing comes is pinged, and when one without an answer to
// the ping is closed.
const (
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
)
