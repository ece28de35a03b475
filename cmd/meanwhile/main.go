// Command meanwhile is the server, and the command line that speaks to one.
package main

import (
	"os"

	"github.com/meanwhile-run/meanwhile/internal/cli"
)

func main() { os.Exit(cli.Main()) }
