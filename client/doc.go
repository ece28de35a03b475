// Package client is the Go client of a Meanwhile server. It submits jobs, waits for
// them, watches their output, and cancels, retries and lists them, over HTTP. It uses
// only the standard library.
//
//	c, err := client.New("http://127.0.0.1:8080")
//	job, err := c.Submit(ctx, client.Submission{Queue: "chat", Input: body})
//	for event, err := range c.Watch(ctx, job.ID, 0) { … }
//
// Every call ends when its context ends. Nothing else limits how long a call waits for
// the work. The client retries calls that are safe to repeat (see [WithRetries]): reads,
// cancels and submissions. A submission carries an idempotency key, so that a retry
// creates no second job. [Client.Wait] and [Client.Watch] continue through restarts of
// the server.
//
// Every refusal by the server is an *[Error].
package client
