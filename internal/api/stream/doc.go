// Package stream sends the events of jobs to clients, over server-sent events and over
// WebSockets. Each API encodes the events in its own format.
//
// A [Feed] turns the updates of a [Watcher] into calls: a snapshot, the output, each change,
// the end. An API implements [EventSink], which encodes them. [SSE] serves a feed as the
// response to a request. A [Session] serves many feeds on one [Socket]. [DetachedResponses]
// are responses that outlast their handlers, without the memory that net/http needs.
//
// Following a job does not change it, so the package does not import the engine.
package stream
