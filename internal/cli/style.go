package cli

import "strconv"

// style adds colours and cursor movements to text for a terminal that has them.
type style struct{ colours bool }

// Colours of a terminal: the parameters of the escape sequence.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
	dim    = "2"
)

// paint returns text in a colour; unchanged where there are no colours.
func (s style) paint(colour, text string) string {
	if !s.colours || text == "" || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// isDumb reports whether the terminal executes no escape sequences.
func (e *Env) isDumb() bool { return e.getenv("TERM") == "dumb" }

// styleFor returns the style for a stream. NO_COLOR with any value turns colours off
// (https://no-color.org).
func (e *Env) styleFor(terminal bool) style {
	return style{colours: terminal && !e.isDumb() && e.getenv("TERM") != "" && e.getenv("NO_COLOR") == ""}
}

// eraseLeft erases the last columns before the cursor.
func eraseLeft(columns int) string { return "\x1b[" + strconv.Itoa(columns) + "D\x1b[K" }
