// Package bench measures a server from outside, as its users do: through package client,
// over HTTP. There is no warm-up, and no sample is left out. A report describes the
// machine and contains two floors from the same run: the time of a sync on the data's
// disk, and the same load on an HTTP server that answers from memory.
//
// Percentiles are computed from exact samples. Every bench is limited in count and time.
package bench
