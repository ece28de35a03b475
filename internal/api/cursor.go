package api

import (
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ParseNumber reads a number from 0 to 2⁶³−1 without a sign or leading zeros. It reports
// false for any other text.
func ParseNumber(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err == nil && strconv.FormatUint(n, 10) == text
}

// ParseSeq reads the number of an output entry. "" is 0, the place before the first entry.
func ParseSeq(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, ok := ParseNumber(text)
	if !ok {
		return 0, job.Errorf(job.Invalid, "%s is not a cursor; after takes the number of an output entry, or 0", job.Quote(text))
	}
	return n, nil
}

// pagePrefix begins the cursor of a list. The rest is opaque to clients.
const pagePrefix = "page_"

// PageCursor returns the cursor of the page that begins after a job.
func PageCursor(next job.ID) string { return job.UUID(next).Text(pagePrefix) }

// ParsePageCursor reads the cursor of a list. "" is the zero id, which asks for the first
// page.
func ParsePageCursor(text string) (job.ID, error) {
	if text == "" {
		return job.ID{}, nil
	}
	id, ok := job.ParseUUID(pagePrefix, text)
	if !ok || id == (job.UUID{}) {
		return job.ID{}, job.Errorf(job.Invalid, "%s is not a cursor of a list; after takes the next of the page before", job.Quote(text))
	}
	return job.ID(id), nil
}
