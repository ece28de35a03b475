package llm

import "context"

// CallHook is told of a call to a model's server that begins, in the context of its
// attempt. trace is the traceparent (W3C Trace Context) that the server is sent. ended
// is called when its answer is over: with the answer's status, or 0, what the server
// said of its usage, as JSON or nil, and why the call failed, if it did.
type CallHook func(ctx context.Context, model string) (trace string, ended func(status int, usage []byte, err error))

// followed does a call, with someone to follow it where there is anyone.
func (c *call) followed(ctx context.Context, follow CallHook, body []byte) error {
	if follow == nil {
		return c.do(ctx, body)
	}
	trace, ended := follow(ctx, c.model.Name)
	c.trace = trace
	err := c.do(ctx, body)
	ended(c.status, c.usage, err)
	return err
}
