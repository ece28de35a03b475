package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Prefer is what a request's Prefer header (RFC 7240) asks for:
// "respond-async", which it does anyway; "wait=N", N whole seconds; and how far the
// watch URL of the answer is to reach: "watch=cancel", "watch-ttl=N". Of a
// preference given twice the first counts; unknown ones are ignored, as the RFC
// has it, but a wait that is none is refused: whoever sends it means something.
type Prefer struct {
	RespondAsync bool
	HasWait      bool // a wait is asked for, which may be 0
	Wait         time.Duration
	WatchCancel  bool          // the watch URL may cancel
	WatchTTL     time.Duration // of the watch URL; 0 for the usual time
}

// PreferOf reads the header Prefer.
func ParsePrefer(h http.Header) (Prefer, error) {
	var p Prefer
	for _, line := range h["Prefer"] {
		for item := range strings.SplitSeq(line, ",") {
			if err := p.add(item); err != nil {
				return Prefer{}, err
			}
		}
	}
	return p, nil
}

func (p *Prefer) add(item string) error {
	item, _, _ = strings.Cut(item, ";") // no preference of ours has parameters
	name, value, _ := strings.Cut(item, "=")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "respond-async":
		p.RespondAsync = true
	case "wait":
		wait, err := parseWait(unquoted(value))
		if err != nil {
			return err
		}
		if !p.HasWait {
			p.HasWait, p.Wait = true, wait
		}
	case "watch":
		if unquoted(value) != "cancel" {
			return job.Errorf(job.Invalid, "Prefer: watch=%s says nothing; watch=cancel makes a watch URL that may cancel its job", job.Quote(value))
		}
		p.WatchCancel = true
	case "watch-ttl":
		lives, ok := ParseNumber(unquoted(value))
		if !ok || lives < 1 || lives > mostLife {
			return job.Errorf(job.Invalid, "Prefer: watch-ttl=%s is no time; it takes whole seconds from 1 to %d", job.Quote(value), mostLife)
		}
		if p.WatchTTL == 0 {
			p.WatchTTL = time.Duration(lives) * time.Second
		}
	}
	return nil
}

const (
	mostWait = int64(job.MaxWait / time.Second)
	mostLife = int64(job.MaxDuration / time.Second)
)

// unquoted is a value without the space and the quotes around it.
func unquoted(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	return text
}

func parseWait(text string) (time.Duration, error) {
	n, ok := ParseNumber(text)
	if !ok || n > mostWait {
		return 0, job.Errorf(job.Invalid, "Prefer: wait=%s is not a wait; it takes whole seconds from 0 to %d", job.Quote(text), mostWait)
	}
	return time.Duration(n) * time.Second, nil
}

// Apply tells the client which preferences counted.
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

// String is the header's value that asks for the same.
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
