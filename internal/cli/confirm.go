package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/meanwhile-run/meanwhile/client"
)

// confirm counts the jobs that an action would change and asks whether they are
// meant. Nobody is asked where there is nothing to change.
func confirm(ctx context.Context, env *Env, c *client.Client, a action, f client.Filter) error {
	if !env.InTerminal {
		return usagef("say --yes: without a terminal there is nobody to ask whether these jobs are meant")
	}
	n, more, err := count(ctx, c, f, a.changes)
	if err != nil || n == 0 && !more {
		return err
	}
	many := jobCount(n)
	if more {
		many += " or more"
	}
	fmt.Fprintf(env.Err, "%s selected. %s [y/N] ", many, a.question)
	answer, err := readLine(ctx, env.In)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// mostCounted bounds how many jobs are looked at to say how many are meant.
const mostCounted = 5000

// count counts the selected jobs that an action would change; more says that there
// may be others.
func count(ctx context.Context, c *client.Client, f client.Filter, changes func(*client.Job) bool) (n int, more bool, err error) {
	seen := 0
	for j, err := range c.List(ctx, client.ListOptions{Filter: f, Limit: 100}) {
		switch {
		case err != nil:
			return n, false, err
		case seen == mostCounted:
			return n, true, nil
		case changes(&j):
			n++
		}
		seen++
	}
	return n, false, nil
}

// readLine reads what a person types, or ends with ctx. The read itself then ends
// with the process: there is no other way to end one of a terminal.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // an end of input is no answer
		typed <- line
	}()
	select {
	case line := <-typed:
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
