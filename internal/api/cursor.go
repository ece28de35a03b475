package api

import (
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ParseNumber reads a number that is not negative, in its one spelling.
func ParseNumber(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err == nil && strconv.FormatUint(n, 10) == text
}

// ParseSeq reads the number of an output entry; "" is 0, before the first.
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

// pagePrefix begins the cursor of a list. What follows is nobody's business.
const pagePrefix = "page_"

// PageCursor is the cursor of the page that begins behind a job.
func PageCursor(next job.ID) string { return job.UUID(next).Text(pagePrefix) }

// ParsePageCursor reads a cursor; "" is the zero id, before the first page.
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
