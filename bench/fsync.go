package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	fsyncs    = 300
	fsyncTime = 5 * time.Second // limit for a slow disk
)

// measureFsync repeatedly appends 4 KiB to a file in dir and syncs it. No acknowledged write
// on this disk can be faster.
func measureFsync(ctx context.Context, dir string) (_ Latency, err error) {
	f, err := os.CreateTemp(dir, "meanwhile-bench-fsync-")
	if err != nil {
		return Latency{}, fmt.Errorf("the data directory cannot be written: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4<<10)
	var samples []time.Duration
	for began := time.Now(); len(samples) < fsyncs && time.Since(began) < fsyncTime && ctx.Err() == nil; {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return Latency{}, err
		}
		if err := f.Sync(); err != nil {
			return Latency{}, err
		}
		samples = append(samples, time.Since(start))
	}
	return latencyOf(samples), ctx.Err()
}
