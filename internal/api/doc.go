// Package api is the base of every HTTP API. It decodes strict JSON, writes errors, reads the
// Prefer and Idempotency-Key headers, and sets the deadlines of clients. Package gate decides
// who may make a request. Package stream follows jobs. Each API has a package of its own under
// this directory.
//
// An API writes a [Handler], which returns an error instead of writing it. [Wrap] writes
// the error in the API's own format and logs the server's own faults.
package api
