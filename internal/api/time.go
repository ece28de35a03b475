package api

import (
	"strings"
	"time"
)

// ParseTime parses a time of RFC 3339, section 5.6, and nothing else: [time.Parse] also takes
// a comma before the fraction, an hour of one digit and offsets past 24 hours, and refuses
// a "t" or "z" in lower case and a leap second. The fraction may have any number of digits;
// those past nanoseconds are cut. A leap second is the end of its minute.
func ParseTime(text string) (time.Time, bool) {
	const layout = "2006-01-02T15:04:05"
	if len(text) < len(layout)+1 {
		return time.Time{}, false
	}
	head, rest := strings.ToUpper(text[:len(layout)]), text[len(layout):]
	leap := strings.HasSuffix(head, ":60")
	if leap {
		head = strings.TrimSuffix(head, "60") + "59"
	}
	at, err := time.Parse(layout, head)
	if err != nil {
		return time.Time{}, false
	}
	nanos, rest, ok := parseFraction(rest)
	if !ok {
		return time.Time{}, false
	}
	offset, ok := parseOffset(rest)
	if !ok {
		return time.Time{}, false
	}
	at = at.Add(-offset)
	if leap {
		// A leap second is the last of a day in UTC.
		if at.Hour() != 23 || at.Minute() != 59 {
			return time.Time{}, false
		}
		at = at.Add(time.Second)
	}
	return at.Add(nanos), true
}

// parseFraction parses the fraction of a second at the beginning of text, which may be
// missing.
func parseFraction(text string) (nanos time.Duration, rest string, ok bool) {
	digits, ok := strings.CutPrefix(text, ".")
	if !ok {
		return 0, text, true
	}
	rest = strings.TrimLeft(digits, "0123456789")
	digits = digits[:len(digits)-len(rest)]
	unit := time.Second
	for i := range min(len(digits), 9) {
		unit /= 10
		nanos += time.Duration(digits[i]-'0') * unit
	}
	return nanos, rest, digits != ""
}

// parseOffset parses "Z" or an offset such as "+01:00", which must be all of text.
func parseOffset(text string) (time.Duration, bool) {
	if text == "Z" || text == "z" {
		return 0, true
	}
	if len(text) != len("+01:00") || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	of, err := time.Parse("15:04", text[1:])
	if err != nil {
		return 0, false
	}
	offset := time.Duration(of.Hour())*time.Hour + time.Duration(of.Minute())*time.Minute
	if text[0] == '-' {
		offset = -offset
	}
	return offset, true
}
