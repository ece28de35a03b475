// Command attack attacks a server on loopback and measures what that costs: memory with
// bodies that never end, with readers that do not read and with nested JSON, descriptors with
// idle sockets, and the status reads of others meanwhile. It builds the real program, and
// prints what was measured beside each bound. Its exit status is 1 when one is past its
// bound.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
)

func main() {
	binary := flag.String("binary", "", "the program to attack; without it, it is built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	past, err := run(ctx, *binary)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "attack:", err)
	case past:
		fmt.Println("A measurement is past its bound.")
	default:
		fmt.Println("All measurements are within their bounds.")
		return
	}
	os.Exit(1)
}

// measurement is a row of the table.
type measurement struct {
	what     string
	measured float64
	bound    float64 // measured must not be more
	unit     string
}

// attacks are made one by one, each on a server of its own.
var attacks = []struct {
	name  string
	files int // that the server may have open; 0 for the usual limit
	make  func(*target) ([]measurement, error)
}{
	{"bodies that never end", 0, unfinishedBodies},
	{"readers that do not read", 0, slowReaders},
	{"nested JSON", 0, nestedJSON},
	{"idle sockets", 200, idleSockets},
	{"names of strangers", 0, foreignHosts},
}

// run makes all attacks. past reports whether one was past a bound.
func run(ctx context.Context, binary string) (past bool, err error) {
	dir, err := os.MkdirTemp("", "meanwhile-attack-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		if binary, err = build(ctx, dir); err != nil {
			return false, err
		}
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "attack\twhat\tmeasured\tbound\t")
	for _, a := range attacks {
		t, err := start(ctx, binary, dir, a.files)
		if err != nil {
			return past, fmt.Errorf("%s: %w", a.name, err)
		}
		rows, err := a.make(t)
		t.stop()
		if err != nil {
			return past, fmt.Errorf("%s: %w; the server's log is\n%s", a.name, err, t.log())
		}
		for _, m := range rows {
			mark := ""
			if m.measured > m.bound {
				past, mark = true, "PAST ITS BOUND"
			}
			fmt.Fprintf(table, "%s\t%s\t%.4g %s\t%.4g %s\t%s\n", a.name, m.what, m.measured, m.unit, m.bound, m.unit, mark)
		}
	}
	return past, nil
}
