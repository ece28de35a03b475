// Package client speaks to a Meanwhile server over HTTP: it submits jobs, waits
// for them, watches what they say, and cancels, retries and lists them. It needs
// the standard library only.
//
//	c, err := client.New("http://127.0.0.1:8080")
//	job, err := c.Submit(ctx, client.Submission{Queue: "chat", Input: body})
//	for event, err := range c.Watch(ctx, job.ID, 0) { … }
//
// Every call ends when its context does; no call is otherwise bounded in the time
// that the work takes. What is safe to repeat is repeated (see [WithRetries]): a
// read, a cancel, and a submit, which carries an idempotency key so that it never
// makes two jobs. [Client.Wait] and [Client.Watch] go on through restarts of the
// server.
//
// Whatever the server refuses is an *[Error].
package client
