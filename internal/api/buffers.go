package api

import "sync"

// Buffers are pooled buffers for answers. The zero value is ready.
type BufferPool struct{ pool sync.Pool } // of *[]byte

// maxPooled keeps one enormous answer from staying in memory for good.
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

// Put gives a buffer back, grown to what was used of it.
func (b *BufferPool) Put(buf *[]byte, used []byte) {
	if cap(used) <= maxPooled {
		*buf = used
		b.pool.Put(buf)
	}
}
