// Package webhook tells a server that a job has ended: it makes the event, signs it as Standard
// Webhooks 1.0.0 asks, and sends it.
//
// A delivery is a job of the queue [job.CallbackQueue]. Its input is a [Delivery]: where to send what. The
// event is made when the parent ends, so a delivery says what was so then, whatever happens to the
// parent afterwards. Its secrets are not in the job: [Endpoints] has them.
//
// The files follow a delivery: event.go (what is sent), delivery.go (the job, and when it is tried
// again), secret.go and signature.go (who sends it), executor.go and send.go (one attempt),
// circuit.go (destinations that fail) and fault.go (what a failure means).
package webhook
