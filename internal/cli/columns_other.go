//go:build !unix

package cli

import "os"

// columns returns 0: the width is unknown on this operating system.
func columns(*os.File) int { return 0 }
