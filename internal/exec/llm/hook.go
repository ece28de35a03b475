package llm

import "context"

// CallHook is called when a call to a model's server begins, in the context of its attempt.
// trace is the traceparent (W3C Trace Context) to send to the server. ended is called when the
// call is over, with the HTTP status of the answer or 0, the usage that the server reported as
// JSON or nil, and the error of the call or nil.
type CallHook func(ctx context.Context, model string) (trace string, ended func(status int, usage []byte, err error))

// doWithHook makes the call and runs the hook, if there is one.
func (c *call) doWithHook(ctx context.Context, follow CallHook, req request) error {
	if follow == nil {
		return c.do(ctx, req)
	}
	trace, ended := follow(ctx, c.model.Name)
	c.trace = trace
	err := c.do(ctx, req)
	ended(c.status, c.usage, err)
	return err
}
