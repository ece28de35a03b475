package llm

import (
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// retryAfter returns how long the server asks to wait, in a header that says only this:
// Retry-After (RFC 9110, section 10.2.3) or one of its variants; 0 without such a header.
func retryAfter(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if ms, err := strconv.ParseFloat(h.Get(name), 64); err == nil {
			return clampSeconds(ms / 1000)
		}
	}
	for _, name := range []string{"Retry-After", "X-Retry-After", "X-Ratelimit-Reset-After"} {
		if d := parseWait(h.Get(name), now); d > 0 {
			return d
		}
	}
	return 0
}

// serverTime returns the time on the server's clock, to which its dates belong, if that differs
// much from ours.
func serverTime(h http.Header, now time.Time) time.Time {
	at, err := http.ParseTime(h.Get("Date"))
	if err != nil || at.Sub(now).Abs() < 5*time.Second {
		return now
	}
	return at
}

// limitReset returns when a rate limit is reset, by the headers that describe limits:
// x-ratelimit-reset-requests, ratelimit-reset, anthropic-ratelimit-tokens-reset and the like. An
// answer has one for each limit. Only the exhausted ones count, if the answer says which.
func limitReset(h http.Header, now time.Time) time.Duration {
	var exhausted, shortest time.Duration
	for name, values := range h {
		plain := strings.ToLower(strings.ReplaceAll(name, "-", ""))
		if len(values) == 0 || !strings.Contains(plain, "ratelimit") {
			continue
		}
		if plain == "ratelimit" {
			exhausted = max(exhausted, structuredReset(values[0]))
			continue
		}
		d := parseWait(values[0], now)
		if d == 0 || !strings.Contains(plain, "reset") {
			continue
		}
		remaining := http.CanonicalHeaderKey(strings.Replace(strings.ToLower(name), "reset", "remaining", 1))
		switch left := h.Get(remaining); {
		case left != "" && strings.Trim(left, "0.") == "":
			exhausted = max(exhausted, d)
		case shortest == 0 || d < shortest:
			shortest = d
		}
	}
	if exhausted > 0 {
		return exhausted
	}
	return shortest
}

// structuredReset reads the header RateLimit (draft-ietf-httpapi-ratelimit-headers): the
// longest t of the policies whose r is 0. Older drafts call them reset and remaining.
func structuredReset(value string) time.Duration {
	var longest time.Duration
	for policy := range strings.SplitSeq(value, "\"") {
		var left, seconds string
		for _, item := range strings.FieldsFunc(policy, func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
			name, v, _ := strings.Cut(item, "=")
			switch name {
			case "r", "remaining":
				left = v
			case "t", "reset":
				seconds = v
			}
		}
		if s, err := strconv.ParseFloat(seconds, 64); err == nil && left == "0" {
			longest = max(longest, clampSeconds(s))
		}
	}
	return longest
}

// parseWait reads a wait in any of the forms of headers and error bodies: seconds, a duration
// such as 1m30s, a date, or seconds or milliseconds since 1970.
func parseWait(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case n > 1e12 && n < 1e14:
			return clampSeconds(n/1000 - float64(now.Unix()))
		case n > 1e9 && n < 1e11:
			return clampSeconds(n - float64(now.UnixMilli())/1000)
		}
		return clampSeconds(n)
	}
	for _, parse := range []func(string) (time.Time, error){
		http.ParseTime, func(s string) (time.Time, error) { return time.Parse(time.RFC3339, s) },
	} {
		if at, err := parse(value); err == nil {
			return clampSeconds(at.Sub(now).Seconds())
		}
	}
	return clampSeconds(spokenSeconds(value))
}

// waitSentence finds the place in a message where it says how long to wait.
var waitSentence = regexp.MustCompile(`(?i)\b(?:try(?:ing)? again|retry(?:ing)?|wait(?:ing)?|resets?)` +
	`(?:\s+(?:in|after|for|at least|about|approximately|another|again|your request|the request))*[\s:]+([0-9])`)

// waitInSentence returns the wait that a message asks for, such as "Please try again in 1m26.4s";
// 0 if it names none.
func waitInSentence(message string) time.Duration {
	at := waitSentence.FindStringSubmatchIndex(message)
	if at == nil {
		return 0
	}
	return clampSeconds(spokenSeconds(message[at[2]:]))
}

var unitSeconds = map[string]float64{
	"ms": 0.001, "msec": 0.001, "msecs": 0.001, "millisecond": 0.001, "milliseconds": 0.001,
	"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
	"m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
	"h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
	"d": 86400, "day": 86400, "days": 86400,
}

// spokenSeconds reads the durations at the beginning of a text: "20s", "1m26.4s", "2 minutes and
// 5 seconds".
func spokenSeconds(text string) (seconds float64) {
	for {
		text = strings.TrimLeft(strings.TrimPrefix(strings.TrimLeft(text, " ,"), "and "), " ")
		digits := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if digits <= 0 {
			return seconds
		}
		n, err := strconv.ParseFloat(text[:digits], 64)
		text = strings.TrimLeft(text[digits:], " ")
		letters := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
		if letters < 0 {
			letters = len(text)
		}
		unit := unitSeconds[strings.ToLower(text[:letters])]
		if err != nil || unit == 0 {
			return seconds
		}
		seconds += n * unit
		text = text[letters:]
	}
}

// clampSeconds converts seconds to a duration from 0 to [job.MaxDuration].
func clampSeconds(seconds float64) time.Duration {
	if math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, job.MaxDuration.Seconds()) * float64(time.Second))
}
