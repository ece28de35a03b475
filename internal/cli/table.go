package cli

import (
	"io"
	"strings"
)

// table prints aligned columns. It removes control characters and line breaks from cells.
type table struct {
	out     io.Writer
	style   style
	columns int // of the terminal; 0 when unknown
	rows    [][]string
	colours []map[int]string // by row: the colours of its cells
}

const maxCell = 64 // columns of a terminal

func newTable(env *Env, head ...string) *table {
	t := &table{out: env.Out, style: env.styleFor(env.OutTerminal)}
	if env.OutTerminal {
		t.columns = env.wrapWidth()
	}
	t.row(head...)
	return t
}

// row adds a row.
func (t *table) row(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = oneLine(cell, maxCell)
	}
	t.rows = append(t.rows, row)
	t.colours = append(t.colours, nil)
}

// colour colours a cell of the last row.
func (t *table) colour(cell int, colour string) {
	t.colours[len(t.rows)-1] = map[int]string{cell: colour}
}

// flush prints the rows.
func (t *table) flush() error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], textWidth(cell))
		}
	}
	var b strings.Builder
	for n, row := range t.rows {
		column, gap := 0, "" // where the next cell begins, and the space before it
		for i, cell := range row {
			// A row that is wider than the terminal continues below, so that it breaks no cell.
			if t.columns > 0 && i > 0 && column+textWidth(cell) > t.columns {
				column, gap = 2, "\n  "
			}
			b.WriteString(gap + t.style.paint(t.colours[n][i], cell))
			gap = strings.Repeat(" ", widths[i]-textWidth(cell)+2)
			column += widths[i] + 2
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}
