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

// confirm counts the jobs that an action would change and asks the user to confirm. If no
// job would change, it does not ask. Without a terminal it refuses.
func confirm(ctx context.Context, env *Env, c *client.Client, a action, f client.Filter) error {
	if !env.InTerminal {
		return usagef("give --yes: without a terminal the command cannot ask for a confirmation")
	}
	n, more, err := count(ctx, c, f, a.changes)
	// If no job would change, do not ask: the action prints 0.
	if err != nil || n == 0 && !more {
		return err
	}
	counted := jobCount(n)
	if more {
		counted += " or more"
	}
	fmt.Fprintf(env.Err, "%s selected. %s [y/N] ", counted, a.question)
	answer, err := readLine(ctx, env.In)
	if err != nil {
		fmt.Fprintln(env.Err) // the question has no line break
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("no job was changed")
}

// maxCounted limits how many jobs confirm reads to count them.
const maxCounted = 5000

// count counts the selected jobs that an action would change. more reports that it stopped
// at maxCounted, so there may be others.
func count(ctx context.Context, c *client.Client, f client.Filter, changes func(*client.Job) bool) (n int, more bool, err error) {
	checked := 0
	for j, err := range c.List(ctx, client.ListOptions{Filter: f, Limit: 100}) {
		switch {
		case err != nil:
			return n, false, err
		case checked == maxCounted:
			// Counting millions of jobs takes longer than a user waits for a question.
			return n, true, nil
		case changes(&j):
			n++
		}
		checked++
	}
	return n, false, nil
}

// readLine reads a line that a user types, or returns when ctx ends. A read from a
// terminal cannot be interrupted, so its goroutine then runs until the process ends.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // the end of the input counts as an empty answer
		typed <- line
	}()
	select {
	case line := <-typed:
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
