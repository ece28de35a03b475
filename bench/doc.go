// Package bench measures a running server from outside, as its users would:
// through package client, over HTTP. Nothing is warmed up, nothing is left out, and
// every figure comes with what it was measured on and with the floors it stands
// on, measured in the same run: what the disk takes to sync, and what the same load
// does to an HTTP server that answers from memory.
//
// Percentiles are of exact samples. Every bench is bounded in count and time.
package bench
