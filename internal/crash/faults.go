package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fault is something that happens to a cluster in a round. It returns when it is over and all runs
// again.
type fault struct {
	name   string
	weight int
	happen func(ctx context.Context, c *cluster, h *holders, rng *rand.Rand) error
}

var faults = []fault{
	{"kill", 4, killServer},
	{"kill all", 1, killAll},
	{"database shut down at once", 2, func(_ context.Context, c *cluster, _ *holders, rng *rand.Rand) error {
		return c.crashDatabase(false, rng)
	}},
	{"database killed", 2, func(_ context.Context, c *cluster, _ *holders, rng *rand.Rand) error {
		return c.crashDatabase(true, rng)
	}},
	{"connections cut", 2, cutConnections},
	{"connections hang", 3, hangConnections},
	{"server stopped", 2, freezeServer},
}

// upTo returns a random time.
func upTo(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}

// anyNode calls f with a server that has no other fault.
func (c *cluster) anyNode(rng *rand.Rand, f func(*node) error) error {
	n := c.nodes[rng.IntN(servers)]
	n.faults.Lock()
	defer n.faults.Unlock()
	return f(n)
}

// restart kills a server and starts it after a while.
func (n *node) restart(ctx context.Context, pause time.Duration) error {
	if err := n.kill(); err != nil {
		return err
	}
	sleep(ctx, pause)
	_, err := n.start(ctx, n.args...)
	return err
}

func killServer(ctx context.Context, c *cluster, _ *holders, rng *rand.Rand) error {
	return c.anyNode(rng, func(n *node) error { return n.restart(ctx, upTo(rng, 2*time.Second)) })
}

func killAll(ctx context.Context, c *cluster, _ *holders, rng *rand.Rand) error {
	errs := make(chan error, servers)
	for _, n := range c.nodes {
		pause := upTo(rng, time.Second)
		go func() {
			n.faults.Lock()
			defer n.faults.Unlock()
			errs <- n.restart(ctx, pause)
		}()
	}
	var err error
	for range c.nodes {
		if one := <-errs; one != nil {
			err = one
		}
	}
	return err
}

// crashDatabase ends the database without order and starts it again.
func (c *cluster) crashDatabase(kill bool, rng *rand.Rand) error {
	c.dbMu.Lock()
	defer c.dbMu.Unlock()
	pause := upTo(rng, time.Second)
	return c.db.Crash(kill, func() { time.Sleep(pause) })
}

func cutConnections(ctx context.Context, c *cluster, _ *holders, rng *rand.Rand) error {
	return c.anyNode(rng, func(n *node) error {
		for range 1 + rng.IntN(10) {
			n.proxy.Cut()
			sleep(ctx, upTo(rng, 200*time.Millisecond))
		}
		return nil
	})
}

// hangConnections loses all packets between a server and the database, often for longer than a
// lease. The connections then continue, or never do.
func hangConnections(ctx context.Context, c *cluster, _ *holders, rng *rand.Rand) error {
	return c.anyNode(rng, func(n *node) error {
		n.proxy.Hang()
		sleep(ctx, upTo(rng, 2*lease))
		if rng.IntN(2) == 0 {
			n.proxy.Abandon()
		}
		n.proxy.Resume()
		return nil
	})
}

// freezeServer stops the process of a server, often for longer than a lease.
func freezeServer(ctx context.Context, c *cluster, h *holders, rng *rand.Rand) error {
	return c.anyNode(rng, func(n *node) error {
		h.setFrozen(n.number, true)
		defer h.setFrozen(n.number, false)
		if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		sleep(ctx, upTo(rng, 2*lease))
		return n.cmd.Process.Signal(syscall.SIGCONT)
	})
}

func pickFault(rng *rand.Rand) fault {
	all := 0
	for _, f := range faults {
		all += f.weight
	}
	at := rng.IntN(all)
	for _, f := range faults {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	return faults[0]
}

// haveFaults lets one to three faults happen within a time, at once or one after the other. It
// returns their names when all are over.
func haveFaults(ctx context.Context, c *cluster, h *holders, rng *rand.Rand, within time.Duration) (names string, err error) {
	var all sync.WaitGroup
	var list []string
	errs := make(chan error, 3)
	for range 1 + rng.IntN(3) {
		f, own, after := pickFault(rng), rand.New(rand.NewPCG(rng.Uint64(), 0)), upTo(rng, within)
		list = append(list, f.name)
		all.Go(func() {
			sleep(ctx, after)
			if err := f.happen(ctx, c, h, own); err != nil {
				errs <- fmt.Errorf("%s: %w", f.name, err)
			}
		})
	}
	all.Wait()
	select {
	case err = <-errs:
	default:
	}
	return strings.Join(list, ", "), err
}
