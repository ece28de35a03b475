package llm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// reason is what a server says about an error, in a body or in an event.
type reason struct {
	words   []string      // its codes, types and names, as [normalWord] writes them
	message string        // as the server wrote it: neither bounded nor printable
	param   string        // the member of the request that it names; "" for none
	wait    time.Duration // how long it asks to wait; 0 if it does not
}

// maxReason limits the text of a message that is looked at, in bytes.
const maxReason = 16 << 10

// maxReasonItems limits how many members of a list of errors are read.
const maxReasonItems = 3

// readReason reads an error body in any of the forms that servers use.
func readReason(body []byte, now time.Time) reason {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	// Some servers write the error in the form of the stream that was asked for.
	for bytes.HasPrefix(body, []byte("event:")) || bytes.HasPrefix(body, []byte("data:")) {
		line, rest, _ := bytes.Cut(body, []byte("\n"))
		if data, isData := bytes.CutPrefix(line, []byte("data:")); isData {
			body = bytes.TrimSpace(data)
			break
		}
		body = bytes.TrimSpace(rest)
	}
	in := reasonReader{now: now}
	if value, err := decodeJSON(body); err == nil {
		in.read(value, 0)
	} else {
		in.addMessage(textOfPage(body))
	}
	if in.wait == 0 {
		in.wait = waitInSentence(in.message)
	}
	return in.reason
}

type reasonReader struct {
	reason
	now time.Time
}

// Names of members, without the marks between their words and in lower case, in the order of
// their precision.
var (
	wordNames    = []string{"code", "errorcode", "errcode", "status", "statuscode", "type", "reason", "errortype", "exceptiontype"}
	messageNames = []string{"message", "msg", "detail", "errormessage", "errormsg", "errmsg", "statusmsg", "errordescription", "description", "faultstring", "title"}
	nestedNames  = []string{"error", "errors", "detail", "details", "fault", "baseresp", "metadata", "raw", "body", "response"}
	waitNames    = []string{"retrydelay", "retryafter", "retryafterseconds", "retryafters", "xratelimitreset", "estimatedtime"}
)

// read collects what a decoded value says about an error.
func (in *reasonReader) read(value any, depth int) {
	const maxDepth = 6
	if depth > maxDepth {
		return
	}
	switch v := value.(type) {
	case string:
		// Text of another server, often JSON itself.
		if inner, err := decodeJSON([]byte(v)); err == nil && strings.HasPrefix(strings.TrimSpace(v), "{") {
			in.read(inner, depth+1)
			return
		}
		in.addMessage(v)
	case []any:
		for _, item := range v[:min(len(v), maxReasonItems)] {
			in.read(item, depth+1)
		}
	case map[string]any:
		in.readObject(v, depth)
	}
}

func (in *reasonReader) readObject(fields map[string]any, depth int) {
	plain := make(map[string]any, len(fields))
	for name, v := range fields {
		plain[strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))] = v
	}
	// The inner error is more precise, so its words come first.
	if inner, isObject := plain["error"].(map[string]any); isObject {
		in.read(inner, depth+1)
		delete(plain, "error")
	}
	in.readWait(plain)
	if param, isText := plain["param"].(string); isText && in.param == "" {
		in.param = param
	}
	for _, name := range wordNames {
		switch v := plain[name].(type) {
		case string, json.Number:
			if word := normalWord(fmt.Sprint(v)); word != "" && len(in.words) < 16 {
				in.words = append(in.words, word)
			}
		}
	}
	for _, name := range messageNames {
		if text, isText := plain[name].(string); isText && strings.TrimSpace(text) != "" {
			in.addMessage(placeOf(plain["loc"]) + text)
			break
		}
	}
	for _, name := range nestedNames {
		switch v := plain[name].(type) {
		case string:
			if name == "error" || name == "raw" {
				in.read(v, depth+1)
			}
		case []any, map[string]any:
			in.read(v, depth+1)
		}
	}
}

func (in *reasonReader) readWait(plain map[string]any) {
	if headers, isObject := plain["headers"].(map[string]any); isObject {
		for name, v := range headers {
			plain[strings.ToLower(strings.ReplaceAll(name, "-", ""))] = v
		}
	}
	for _, name := range waitNames {
		switch v := plain[name].(type) {
		case string, json.Number:
			in.wait = max(in.wait, parseWait(fmt.Sprint(v), in.now))
		}
	}
	if ms, isNumber := plain["retryafterms"].(json.Number); isNumber {
		n, _ := ms.Float64()
		in.wait = max(in.wait, clampSeconds(n/1000))
	}
}

// addMessage adds a sentence unless it was said already.
func (in *reasonReader) addMessage(text string) {
	text = strings.TrimSpace(text[:min(len(text), maxReason)])
	switch {
	case text == "" || len(in.message) > maxReason || strings.Contains(in.message, text):
	case in.message == "":
		in.message = text
	default:
		in.message += "; " + text
	}
}

// placeOf returns the place in the request that a validation error names, such as
// "body.messages.0: ".
func placeOf(loc any) string {
	steps, _ := loc.([]any)
	if len(steps) == 0 {
		return ""
	}
	var names []string
	for _, step := range steps[:min(len(steps), 8)] {
		names = append(names, fmt.Sprint(step))
	}
	return strings.Join(names, ".") + ": "
}

// decodeJSON decodes one JSON value of bounded size. Numbers stay as they are written.
func decodeJSON(data []byte) (any, error) {
	if err := checkShape(data, maxDepth); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errNotJSON
	}
	return value, nil
}

var (
	pageTitle  = regexp.MustCompile(`(?is)<(?:title|h1|message)[^>]*>(.*?)</(?:title|h1|message)>`)
	pageHidden = regexp.MustCompile(`(?is)<(?:script|style|head)\b.*?</(?:script|style|head)>|<[^>]*>`)
)

// textOfPage returns the title of a web page, or its text. It returns other text unchanged, and
// "" for bytes that are no text.
func textOfPage(body []byte) string {
	text := string(body[:min(len(body), maxErrorBody)])
	if strings.HasPrefix(text, "<") {
		if title := pageTitle.FindStringSubmatch(text); title != nil && strings.TrimSpace(title[1]) != "" {
			text = title[1]
		}
		text = pageHidden.ReplaceAllString(text, " ")
		text = strings.NewReplacer("&nbsp;", " ", "&amp;", "&", "&lt;", "<", "&gt;", ">", "&#39;", "'", "&quot;", `"`).Replace(text)
	}
	odd := strings.Count(strings.ToValidUTF8(text, "\ufffd"), "\ufffd")
	for _, r := range text {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			odd++
		}
	}
	if odd > 4+len(text)/16 {
		return ""
	}
	return text
}

// maxQuote is how many characters of a server's text appear in a message or a log line.
const maxQuote = 300

var (
	bearerToken = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
	secretName  = regexp.MustCompile(`(?i)(?:key|token|secret|signature|sig|password|code)$`)
	keyInURL    = regexp.MustCompile(`(?i)([?&][a-z_-]*(?:key|token|secret|signature|sig)=)[^&\s"']+`)
)

// clean makes a text of a server fit for a message: printable, on one line, at most maxQuote
// characters, and without the secrets that were sent to it, which some servers repeat.
func (m *model) clean(text string) string {
	// Far more than maxQuote, so that a secret at the cut is still whole.
	text = text[:min(len(text), maxReason)]
	for _, secret := range m.secrets() {
		text = strings.ReplaceAll(text, secret, "[the key]")
	}
	text = bearerToken.ReplaceAllString(text, "$1 [a key]")
	text = keyInURL.ReplaceAllString(text, "${1}[a key]")
	text = strings.ToValidUTF8(text, "\ufffd")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > maxQuote {
		text = string(runes[:maxQuote]) + "…"
	}
	return text
}

// secrets returns what must not appear in a message, the longest first.
func (m *model) secrets() []string {
	var all []string
	for _, secret := range append([]string{m.APIKey}, m.Secrets...) {
		if secret != "" {
			all = append(all, secret, url.QueryEscape(secret))
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}
