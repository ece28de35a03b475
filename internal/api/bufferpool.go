package api

import "sync"

// BufferPool is a pool of buffers for responses. The zero value is ready. It is safe for
// concurrent use.
type BufferPool struct{ pool sync.Pool } // of *[]byte

// maxPooled is the largest buffer that is kept, in bytes, so that one enormous response
// does not stay in memory for good.
const maxPooled = 64 << 10

// Get returns an empty buffer.
func (b *BufferPool) Get() *[]byte {
	buf, ok := b.pool.Get().(*[]byte)
	if !ok {
		return new([]byte)
	}
	*buf = (*buf)[:0]
	return buf
}

// Put gives a buffer back. used is the slice that it has grown to.
func (b *BufferPool) Put(buf *[]byte, used []byte) {
	if cap(used) <= maxPooled {
		*buf = used
		b.pool.Put(buf)
	}
}
