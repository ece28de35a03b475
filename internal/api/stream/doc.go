// Package stream sends the events of jobs to clients: over server-sent events and over
// WebSockets, for every API in its own form.
//
// A [Feed] turns what a watcher reads of a job into a sequence of calls: a snapshot, the
// output, each change, the end. An API implements [Events], which encodes them. [SSE]
// serves a feed as the answer to a request; a [Session] serves many of them on one
// [Socket]. [Responses] are answers that outlast their handlers without net/http.
//
// Following a job changes nothing of it: the package knows no engine.
package stream
