package meanwhile

import "context"

// Work makes one attempt: the function of a queue or kind, seen from its [Middleware]. Its
// error decides what follows, as that of the function does. The result of the function is
// stored if the outermost Work returns nil.
type Work func(ctx context.Context, t *Task) error

// Middleware wraps the work of every attempt, as for logs, traces, transactions and panics.
// It returns a Work that calls next with the context it got or one derived from it. Work that
// returns nil without calling next succeeds with the result null.
//
// [Config.Middleware] is outermost, then [Use] of the queue, then that of the kind; within each
// the first is outermost. All of them run in the goroutine of the function. A panic
// passes through them before the server logs it and fails the attempt. The server has
// accepted the input before; it decodes it inside the innermost middleware.
type Middleware func(next Work) Work

// chain wraps work in lists of middleware, the first of all outermost.
func chain(work Work, lists ...[]Middleware) Work {
	for i := len(lists) - 1; i >= 0; i-- {
		for k := len(lists[i]) - 1; k >= 0; k-- {
			work = lists[i][k](work)
		}
	}
	return work
}
