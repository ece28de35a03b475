package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// askExample asks a server for a queue with a client that has the option.
func askExample(server *httptest.Server, option client.Option) {
	c, err := client.New(server.URL, option)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	if _, err = c.Queue(context.Background(), "chat"); err != nil {
		fmt.Println(client.CodeOf(err))
	}
}

// headerServer returns a server that prints a header of each request.
func headerServer(name string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(name+":", r.Header.Get(name))
		fmt.Fprint(w, `{"name":"chat"}`)
	}))
}

// The jobs belong to Ann. The server believes it from programs on its own machine.
func ExampleWithUser() {
	server := headerServer("X-User-ID")
	defer server.Close()
	askExample(server, client.WithUser("ann"))
	// Output:
	// X-User-ID: ann
}

// The server has keys. A program reads its key from a place that others cannot read.
func ExampleWithKey() {
	server := headerServer("Authorization")
	defer server.Close()
	askExample(server, client.WithKey("mw_k2vq5hw3mzt7_Zm9yIHRoZSBleGFtcGxlIG9ubHksIG5vdCBhIGtleSE"))
	// Output:
	// Authorization: Bearer mw_k2vq5hw3mzt7_Zm9yIHRoZSBleGFtcGxlIG9ubHksIG5vdCBhIGtleSE
}

// Name the program, for the log of a proxy.
func ExampleWithUserAgent() {
	server := headerServer("User-Agent")
	defer server.Close()
	askExample(server, client.WithUserAgent("shop/1.0"))
	// Output:
	// User-Agent: shop/1.0
}

// Use a transport with a proxy, a certificate or traces of its own.
func ExampleWithTransport() {
	server := headerServer("Connection")
	defer server.Close()
	askExample(server, client.WithTransport(&http.Transport{DisableKeepAlives: true}))
	// Output:
	// Connection: close
}

// restarting returns a server that refuses its first two requests.
func restarting() *httptest.Server {
	asked := 0 // by one request at a time
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"code":"shutting_down","detail":"the server is stopping"}`)
			return
		}
		fmt.Fprint(w, `{"name":"chat"}`)
	}))
}

// Give up at once, so that the program decides itself.
func ExampleWithRetries() {
	server := restarting()
	defer server.Close()
	askExample(server, client.WithRetries(0))
	// Output:
	// shutting_down
}

// Tell the user why it takes longer.
func ExampleWithRetryHook() {
	server := restarting()
	defer server.Close()
	askExample(server, client.WithRetryHook(func(r client.Retry) {
		fmt.Printf("try %d: %v\n", r.Try, r.Err)
	}))
	// Output:
	// try 1: the server is stopping
	// try 2: the server is stopping
}

// Each try waits 20 ms for its answer.
func ExampleWithTimeout() {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	askExample(silent, client.WithTimeout(20*time.Millisecond))
	// Output:
	// unreachable
}
