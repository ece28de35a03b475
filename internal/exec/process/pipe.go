package process

import (
	"errors"
	"os"
	"time"
)

// A command that prints without end must not take the server's time: its outputs are read in
// large pieces, a limited number of times and bytes a second, and a full pipe makes it wait. The
// first bytes after a quiet are read at once.
const (
	pieceSize    = 64 << 10 // bytes; also the size of a pipe on Linux
	readInterval = 10 * time.Millisecond
	stdoutRate   = 8 * pieceSize // bytes in one interval: 50 MiB a second
	stderrRate   = pieceSize     // 6 MiB a second, because its lines are parsed
)

// piece is what one read of an output has returned.
type piece struct {
	stderr bool
	data   []byte        // may be used until taken is sent to
	taken  chan struct{} // the receiver sends to it once; it has a buffer of one
}

// pipeReader reads one of the command's outputs. After the deadline that cleanUp sets, it still
// reads the data that is in the pipe, because the command wrote it in time. It only stops
// waiting for more.
type pipeReader struct {
	// set once
	file   *os.File
	stderr bool            // it is standard error
	grace  time.Duration   // how long to wait for more data, past the deadline
	exited <-chan struct{} // closed when the command has exited

	lateReads int       // number of reads past the deadline
	began     time.Time // when the interval began
	bytes     int       // bytes read in the interval
}

// maxLateReads is more than a full pipe needs. Without it, a process that left the group and
// writes without end would delay the attempt.
const maxLateReads = 16

// relay sends what it reads until the output ends.
func (r *pipeReader) relay(to chan<- piece) {
	p := piece{stderr: r.stderr, taken: make(chan struct{}, 1)}
	buf := make([]byte, pieceSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			p.data = buf[:n]
			to <- p
			<-p.taken
		}
		if err != nil {
			return
		}
		r.pause(n)
	}
}

func (r *pipeReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && r.lateReads < maxLateReads {
		r.lateReads++
		_ = r.file.SetReadDeadline(time.Now().Add(r.grace))
		n, err = r.file.Read(p)
	}
	return n, err
}

// pause waits after a read of n bytes until more may be read.
func (r *pipeReader) pause(n int) {
	now := time.Now()
	if now.Sub(r.began) >= readInterval {
		r.began, r.bytes = now, 0
	}
	r.bytes += n
	rate := stdoutRate
	if r.stderr {
		rate = stderrRate
	}
	// Much is waiting, and reading it costs little for its size.
	if n >= pieceSize/2 && r.bytes < rate {
		return
	}
	wait := time.NewTimer(r.began.Add(readInterval).Sub(now))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-r.exited:
		// The end of the output should not be late. A process that has left the group may still
		// print without end.
		if n >= pieceSize/2 {
			<-wait.C
		}
	}
}
