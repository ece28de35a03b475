package gate

import "github.com/meanwhile-run/meanwhile/internal/api"

// freeResponse is how many bytes of a response are not counted. Most responses are shorter.
const freeResponse = 64 << 10

// ReserveResponse counts bytes of a response that are in memory until a client has read them,
// or refuses them. They count with the bodies of the caller's requests. After nil the caller of
// this method must call release.
func (g *Gate) ReserveResponse(c api.Caller, size int) (release func(), err error) {
	if g == nil || size <= freeResponse {
		return func() {}, nil
	}
	a := g.Bodies.NewAllowance(c)
	return a.Release, a.Reserve(int64(size))
}
