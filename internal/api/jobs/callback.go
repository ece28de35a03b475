package jobs

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// callbackObject is the JSON of a callback. A text is short for its URL.
type callbackObject struct {
	URL      string   `json:"url"`
	Events   []string `json:"events"`
	SecretID string   `json:"secret_id"`
}

// maxEvents bounds the events of a callback: each of them, and some twice.
const maxEvents = 16

// parseCallback parses the callback of a submit; nil for none. The engine checks the URL.
func parseCallback(text json.RawMessage) (*job.Callback, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	var o callbackObject
	var into any = &o
	switch text[0] {
	case '"':
		into = &o.URL
	case '{':
	default:
		return nil, refuse("/callback", "callback must be a URL, or an object with the fields url, events and secret_id")
	}
	if err := api.DecodeJSON(text, into); err != nil {
		return nil, inField(err, "/callback")
	}
	switch {
	case o.URL == "":
		return nil, refuse("/callback/url", "url is missing: it is where the end of the job is sent")
	case len(o.Events) > maxEvents:
		return nil, refuse("/callback/events", "events has at most %d names", maxEvents)
	case len(o.SecretID) > job.MaxKey:
		return nil, refuse("/callback/secret_id", "secret_id is the id of a webhook endpoint")
	}
	events, err := job.ParseEvents(o.Events)
	if err != nil {
		return nil, inField(err, "/callback/events")
	}
	return &job.Callback{URL: o.URL, Events: events, SecretID: o.SecretID}, nil
}

// inField makes the Field of an error about a part of a submit relative to the submit.
func inField(err error, field string) error {
	e, ok := errors.AsType[*job.Error](err)
	if !ok {
		return err
	}
	moved := *e
	moved.Field = field + e.Field
	return &moved
}
