package cli

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// runeWidth returns how many columns of a terminal a character takes: 2 for East Asian wide
// characters and emoji, 0 for those that combine with the one before.
func runeWidth(r rune) int {
	switch {
	case r < 0x300: // Latin, without combining marks; the soft hyphen takes one column too
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// textWidth returns the columns of a text without line breaks and tabs.
func textWidth(text string) (columns int) {
	for _, r := range text {
		columns += runeWidth(r)
	}
	return columns
}

// cut returns text, shortened to at most limit columns.
func cut(text string, limit int) string {
	if textWidth(text) <= limit {
		return text
	}
	columns := 0
	for i, r := range text {
		if columns += runeWidth(r); columns > limit-1 { // one column for the ellipsis
			return text[:i] + "…"
		}
	}
	return text
}

// wordWrapper breaks the lines of a text between words, where a terminal would break them
// inside one. The text comes in pieces, and a piece may end inside a word. The beginning of
// that word is then on the terminal already, and is moved to the next line.
type wordWrapper struct {
	columns func() int // of the terminal; 0 when unknown: then nothing is wrapped

	column  int    // of the cursor
	word    []rune // of the current word, since its beginning
	columnW int    // columns of word
}

// wrap returns the text of the next piece with the added line breaks.
func (w *wordWrapper) wrap(piece string) string {
	// The last column stays empty: terminals differ in where the cursor is after it.
	limit := w.columns() - 1
	if limit < 10 {
		return piece
	}
	var out []byte
	began := -1 // where the current word begins in out; -1 when it began in an earlier piece
	for _, r := range piece {
		size := runeWidth(r)
		switch {
		case r == '\n':
			w.column = 0
			w.endWord()
		case r == '\t':
			w.column = (w.column/8 + 1) * 8
			w.endWord()
		case unicode.IsSpace(r) && w.column+size > limit+1:
			continue // the line breaks here anyway
		case unicode.IsSpace(r):
			w.column += size
			w.endWord()
		case size == 2: // a line may break before and after each of these
			w.endWord()
			if w.column+size > limit {
				out, w.column = append(out, '\n'), 0
			}
			w.column += size
		case w.column+size <= limit:
			if len(w.word) == 0 {
				began = len(out)
			}
			w.extend(r, size)
		case w.column == w.columnW && w.column > 0: // the word is longer than a line: the terminal breaks it
			w.extend(r, size)
		default:
			out = w.moveWord(out, began)
			if len(w.word) == 0 {
				began = len(out)
			}
			w.extend(r, size)
		}
		if len(w.word) == 0 {
			began = -1
		}
		out = append(out, string(r)...)
	}
	return string(out)
}

// moveWord begins a line with the current word, which does not fit where it began.
func (w *wordWrapper) moveWord(out []byte, began int) []byte {
	switch {
	case len(w.word) == 0:
		out = append(out, '\n')
	case began >= 0:
		out = append(out[:began], '\n')
		out = append(out, string(w.word)...)
	default:
		out = append(out, eraseLeft(w.columnW)...)
		out = append(out, '\n')
		out = append(out, string(w.word)...)
	}
	w.column = w.columnW
	return out
}

func (w *wordWrapper) extend(r rune, size int) {
	w.word = append(w.word, r)
	w.columnW += size
	w.column += size
}

func (w *wordWrapper) endWord() {
	// After a word that is longer than a line the cursor is on a later line.
	if columns := w.columns(); columns > 0 && w.column > columns {
		w.column %= columns
	}
	w.word, w.columnW = w.word[:0], 0
}

// wrapText breaks the lines of a whole text between words.
func wrapText(text string, columns int) string {
	w := wordWrapper{columns: func() int { return columns }}
	return strings.TrimRight(w.wrap(text), " ")
}
