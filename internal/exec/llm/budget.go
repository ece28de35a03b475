package llm

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// budget is what the headers of an answer say of a rate limit.
type budget struct {
	limit, remaining int           // calls
	reset            time.Duration // until the limit is whole again
}

// budgetNames are the names of the headers for the limit of calls: what remains, the limit, and
// its reset.
var budgetNames = [...][3]string{
	{"X-Ratelimit-Remaining-Requests", "X-Ratelimit-Limit-Requests", "X-Ratelimit-Reset-Requests"},
	{"Anthropic-Ratelimit-Requests-Remaining", "Anthropic-Ratelimit-Requests-Limit", "Anthropic-Ratelimit-Requests-Reset"},
	{"X-Ratelimit-Remaining", "X-Ratelimit-Limit", "X-Ratelimit-Reset"},
	{"Ratelimit-Remaining", "Ratelimit-Limit", "Ratelimit-Reset"},
}

// exhaustedNames are the same for limits of tokens. They bound calls only once nothing remains.
var exhaustedNames = [...][2]string{
	{"X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"},
	{"Anthropic-Ratelimit-Tokens-Remaining", "Anthropic-Ratelimit-Tokens-Reset"},
	{"Anthropic-Ratelimit-Input-Tokens-Remaining", "Anthropic-Ratelimit-Input-Tokens-Reset"},
}

// readBudget reads how many more calls a server takes, and until when. ok is false if it does not
// say.
func readBudget(h http.Header, now time.Time) (b budget, ok bool) {
	now = serverTime(h, now)
	for _, names := range exhaustedNames {
		if left, found := readCount(h.Get(names[0])); found && left == 0 {
			if reset := parseWait(h.Get(names[1]), now); reset > 0 {
				return budget{reset: min(reset, longestReset)}, true
			}
		}
	}
	for _, names := range budgetNames {
		remaining, found := readCount(h.Get(names[0]))
		reset := parseWait(h.Get(names[2]), now)
		if !found || reset == 0 {
			continue
		}
		// A server may have several limits: the tightest counts.
		if limit, _ := readCount(h.Get(names[1])); !ok || remaining < b.remaining {
			b, ok = budget{limit: max(limit, remaining), remaining: remaining, reset: reset}, true
		}
	}
	return b, ok
}

// readCount reads a number of calls. Some servers write fractions, or a policy after it.
func readCount(value string) (n int, ok bool) {
	value, _, _ = strings.Cut(value, ",")
	value, _, _ = strings.Cut(value, ";")
	f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || f < 0 || f > 1e9 {
		return 0, false
	}
	return int(f), true
}
