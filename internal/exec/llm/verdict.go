package llm

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// verdict is what an error of a server means for a job. A status and an error inside an answer
// are judged by the same table.
type verdict int

const (
	broken verdict = iota
	rejected
	unauthorized
	forbidden
	notFound
	redirected
	timedOut
	conflicting
	rateLimited
	unavailable
	quotaExhausted
)

// Codes with several uses.
const (
	codeBadStream = "upstream_bad_stream"
	codeBadAnswer = "upstream_bad_answer"
	codeTimeout   = "upstream_timeout"
	codeTooLarge  = "upstream_too_large"

	codeRateLimited = "upstream_rate_limited"
	codeUnavailable = "upstream_unavailable"
	codeConflict    = "upstream_conflict"
	codeUnreachable = "upstream_unreachable"
)

// consequences are the code, the class and the beginning of the message of each verdict.
var consequences = [...]struct {
	code  string
	class job.Class
	did   string
}{
	broken:       {"upstream_error", job.Retryable, "failed"},
	rejected:     {"upstream_rejected", job.Final, "does not accept the request"},
	unauthorized: {"upstream_unauthorized", job.Final, "refuses the API key"},
	forbidden:    {"upstream_forbidden", job.Final, "does not allow this with the API key it was given"},
	notFound:     {"upstream_not_found", job.Final, "does not know the model"},
	redirected:   {"upstream_redirect", job.Final, "redirects elsewhere, which is not followed"},
	timedOut:     {codeTimeout, job.Retryable, "took too long"},
	// These errors do not depend on the request itself, so it may succeed later.
	conflicting: {codeConflict, job.Retryable, "cannot do it at this moment"},
	// A wait costs the job no attempt.
	rateLimited: {codeRateLimited, job.Wait, "asks to wait: too many requests"},
	unavailable: {codeUnavailable, job.Wait, "asks to wait: it is not available"},
	// No wait helps until somebody pays.
	quotaExhausted: {"upstream_quota_exhausted", job.Final, "has no quota or credit left for this API key: raise the limit or pay, then retry the job"},
}

// judge returns the verdict on an error. status is its HTTP status; 0 for an error inside an
// answer.
func judge(status int, r reason) verdict {
	// No wait makes a request smaller, whatever the code says.
	if status == http.StatusRequestEntityTooLarge || isTooLarge(r) {
		return rejected
	}
	// Words are more precise than a status. A 429 is often no more than its status says, so only
	// what will not get better overrides it.
	for _, word := range r.words {
		v, known := preciseWords[word]
		if known && (status != http.StatusTooManyRequests || v == quotaExhausted || v == rejected) {
			return v
		}
		if isQuotaWord(word) {
			return quotaExhausted
		}
	}
	if v, known := judgeSentence(r); known {
		return v
	}
	// A proxy that answers 500 often has the real status in the body.
	if status == 0 || status >= 500 {
		for _, word := range r.words {
			if n, err := strconv.Atoi(word); err == nil && n >= 400 && n <= 599 {
				return judgeStatus(n)
			}
		}
	}
	if status != 0 {
		return judgeStatus(status)
	}
	for _, word := range r.words {
		if v, known := vagueWords[word]; known {
			return v
		}
	}
	// An error without a known word may be temporary.
	return broken
}

func judgeStatus(status int) verdict {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return unauthorized
	case http.StatusPaymentRequired:
		return quotaExhausted
	case http.StatusForbidden:
		return forbidden
	case http.StatusNotFound:
		return notFound
	case http.StatusRequestTimeout, 499:
		return timedOut
	case http.StatusConflict, http.StatusTooEarly, http.StatusLocked:
		return conflicting
	// 498 and 529 are the codes of two vendors for a lack of capacity.
	case http.StatusTooManyRequests, 498:
		return rateLimited
	case http.StatusServiceUnavailable, 529:
		return unavailable
	}
	switch {
	case status == http.StatusNotImplemented || status == http.StatusHTTPVersionNotSupported:
		return rejected
	case status >= 500:
		return broken
	case status >= 300 && status < 400:
		return redirected
	}
	return rejected
}

// preciseWords are codes, types and names of errors that say more than an HTTP status, as
// [normalWord] writes them.
var preciseWords = map[string]verdict{
	"insufficientquota": quotaExhausted, "exceededcurrentquota": quotaExhausted, "billinghardlimitreached": quotaExhausted,
	"billingnotactive": quotaExhausted, "budgetexceeded": quotaExhausted, "arrearage": quotaExhausted, "paymentrequired": quotaExhausted,

	"contextlengthexceeded": rejected, "contentfilter": rejected, "contentpolicyviolation": rejected, "datainspectionfailed": rejected,
	"stringabovemaxlength": rejected, "requesttoolarge": rejected, "invalidprompt": rejected, "contextwindowexceeded": rejected,
	"exceedcontextsize": rejected,

	"invalidapikey": unauthorized, "apikeyinvalid": unauthorized, "authentication": unauthorized, "unauthenticated": unauthorized,
	"permission": forbidden, "permissiondenied": forbidden,
	"notfound": notFound, "modelnotfound": notFound,

	"ratelimit": rateLimited, "ratelimitexceeded": rateLimited, "ratelimited": rateLimited, "ratelimitreached": rateLimited,
	"toomanyrequests": rateLimited, "throttling": rateLimited, "throttled": rateLimited, "slowdown": rateLimited, "resourceexhausted": rateLimited,

	"overloaded": unavailable, "engineoverloaded": unavailable, "serverisoverloaded": unavailable, "modeloverloaded": unavailable,
	"serviceunavailable": unavailable, "unavailable": unavailable, "capacityexceeded": unavailable, "serverbusy": unavailable,
	"modelnotready": unavailable, "modelloading": unavailable, "insufficientsystemresource": unavailable,
}

// vagueWords count only for an error without an HTTP status.
var vagueWords = map[string]verdict{
	"invalidrequest": rejected, "badrequest": rejected, "invalidargument": rejected, "failedprecondition": rejected, "validation": rejected,
	"unprocessableentity": rejected, "unsupportedvalue": rejected, "unsupportedparameter": rejected, "invalidparameter": rejected,
	"unauthorized": unauthorized, "forbidden": forbidden,
	"timeout": timedOut, "requesttimeout": timedOut, "deadlineexceeded": timedOut, "gatewaytimeout": timedOut,
}

// normalWord writes a code in the form of the tables: "rate_limit_error", "RateLimitError" and
// "rate-limit" are the same.
func normalWord(word string) string {
	word = strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(strings.ToLower(word))
	for _, ending := range []string{"error", "exception"} {
		if short := strings.TrimSuffix(word, ending); short != "" {
			word = short
		}
	}
	return word
}

// isQuotaWord recognizes the many codes for an account without money.
func isQuotaWord(word string) bool {
	if !strings.HasPrefix(word, "insufficient") && !strings.HasPrefix(word, "notenough") {
		return strings.Contains(word, "billing")
	}
	for _, lacks := range []string{"quota", "balance", "credit", "fund"} {
		if strings.Contains(word, lacks) {
			return true
		}
	}
	return false
}

// judgeSentence judges a message whose code says less than it. A server that names a time to
// wait expects to work again.
func judgeSentence(r reason) (verdict, bool) {
	message := strings.ToLower(r.message)
	if r.wait == 0 {
		for _, says := range []string{
			"credit balance is too low", "insufficient balance", "insufficient credit", "insufficient funds", "insufficient quota",
			"check your plan and billing", "billing hard limit", "payment required", "account is not active", "no credits",
		} {
			if strings.Contains(message, says) {
				return quotaExhausted, true
			}
		}
	}
	return broken, false
}

// isTooLarge recognizes the refusal of a request that does not fit into a limit, such as "Request
// too large for model: limit 6000, requested 8000".
func isTooLarge(r reason) bool {
	message := strings.ToLower(r.message)
	return slices.ContainsFunc([]string{"request too large", "maximum context length", "context_length_exceeded", "prompt is too long"},
		func(says string) bool { return strings.Contains(message, says) })
}

// class returns the class of a verdict, unless the server says itself whether to retry
// (the header x-should-retry).
func (v verdict) class(h http.Header) job.Class {
	class := consequences[v].class
	switch strings.ToLower(h.Get("X-Should-Retry")) {
	case "false":
		return job.Final
	case "true":
		if class == job.Final {
			return job.Retryable
		}
	}
	return class
}

func (v verdict) code() string { return consequences[v].code }
