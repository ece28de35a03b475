package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Prefer holds the preferences of a request's Prefer header (RFC 7240): "respond-async",
// which is the default; "wait=N" in whole seconds; and "watch=cancel" and "watch-ttl=N" for
// the watch URL of the response.
type Prefer struct {
	RespondAsync bool
	HasWait      bool // "wait" was given; Wait may still be 0
	Wait         time.Duration
	WatchCancel  bool          // the watch URL may cancel its job
	WatchTTL     time.Duration // of the watch URL; 0 for the server's default
}

// ParsePrefer reads the Prefer header. Of a preference given twice the first counts. As
// the RFC demands, it ignores unknown preferences. It refuses an invalid value of a known
// one with [job.Invalid], because its client wants something that it would not get.
func ParsePrefer(h http.Header) (Prefer, error) {
	var p Prefer
	for _, value := range h["Prefer"] {
		for item := range strings.SplitSeq(value, ",") {
			if err := p.add(item); err != nil {
				return Prefer{}, err
			}
		}
	}
	return p, nil
}

func (p *Prefer) add(item string) error {
	item, _, _ = strings.Cut(item, ";") // the known preferences have no parameters
	name, value, _ := strings.Cut(item, "=")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "respond-async":
		p.RespondAsync = true
	case "wait":
		wait, err := parseWait(unquote(value))
		if err != nil {
			return err
		}
		if !p.HasWait {
			p.HasWait, p.Wait = true, wait
		}
	case "watch":
		if unquote(value) != "cancel" {
			return job.Errorf(job.Invalid, "Prefer: watch=%s says nothing; watch=cancel makes a watch URL that may cancel its job", job.Quote(value))
		}
		p.WatchCancel = true
	case "watch-ttl":
		ttl, ok := ParseNumber(unquote(value))
		if !ok || ttl < 1 || ttl > maxTTL {
			return job.Errorf(job.Invalid, "Prefer: watch-ttl=%s is no time; it takes whole seconds from 1 to %d", job.Quote(value), maxTTL)
		}
		if p.WatchTTL == 0 {
			p.WatchTTL = time.Duration(ttl) * time.Second
		}
	}
	return nil
}

const (
	maxWait = int64(job.MaxWait / time.Second)
	maxTTL  = int64(job.MaxDuration / time.Second)
)

// unquote removes the space and the quotes around a value.
func unquote(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	return text
}

func parseWait(text string) (time.Duration, error) {
	n, ok := ParseNumber(text)
	if !ok || n > maxWait {
		return 0, job.Errorf(job.Invalid, "Prefer: wait=%s is not a wait; it takes whole seconds from 0 to %d", job.Quote(text), maxWait)
	}
	return time.Duration(n) * time.Second, nil
}

// Apply sets Preference-Applied and Vary of the response.
func (p Prefer) Apply(h http.Header) {
	if _, varies := h["Vary"]; varies {
		h.Add("Vary", "Prefer")
	} else {
		h["Vary"] = varyPrefer
	}
	if p != (Prefer{}) {
		h["Preference-Applied"] = []string{p.String()}
	}
}

// varyPrefer is never changed.
var varyPrefer = []string{"Prefer"}

// String returns the value of a Prefer header with the same preferences.
func (p Prefer) String() string {
	var items []string
	if p.RespondAsync {
		items = append(items, "respond-async")
	}
	if p.HasWait {
		items = append(items, "wait="+strconv.FormatInt(int64(p.Wait/time.Second), 10))
	}
	if p.WatchCancel {
		items = append(items, "watch=cancel")
	}
	if p.WatchTTL > 0 {
		items = append(items, "watch-ttl="+strconv.FormatInt(int64(p.WatchTTL/time.Second), 10))
	}
	return strings.Join(items, ", ")
}
