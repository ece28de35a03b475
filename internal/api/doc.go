// Package api is the base of every HTTP API: strict JSON in, errors out, the preferences
// and keys that a request may carry, and how long the server waits for a client. Package
// gate decides who may make a request; package stream follows jobs; each API has a
// package of its own beside them.
//
// An API writes a [Handler] that returns an error instead of answering it; [Wrap] answers
// the error in the API's own shape, and logs what is our fault.
package api
