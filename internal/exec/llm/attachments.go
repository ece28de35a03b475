package llm

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// attachmentScheme begins the URL or the data of a content part that stands for a file of the
// job, such as "attachment:scan.png".
const attachmentScheme = "attachment:"

// maxAttached bounds the files of one call, in bytes. They are in memory during the call, and a
// third longer in base64.
const maxAttached = 32 << 20

// attachmentFields are the fields of content parts that may name a file, by the type of the part.
var attachmentFields = map[string]struct {
	field   string
	dataURL bool // else only base64
}{
	"image_url":   {"url", true},
	"file":        {"file_data", true},
	"input_audio": {"data", false},
}

// CheckFiles implements [exec.FileChecker]. A message may name only files of its job, and each
// file must be named.
func (e *Executor) CheckFiles(input []byte, files []job.File) error {
	if len(files) == 0 && !bytes.Contains(input, []byte(attachmentScheme)) {
		return nil
	}
	req, refusal := e.parseRequest(input)
	if refusal != nil {
		return refusal
	}
	named, size := map[string]bool{}, int64(0)
	_, err := replaceAttachments(req.fields["messages"], func(name, at string, _ bool) (string, error) {
		i := slices.IndexFunc(files, func(f job.File) bool { return f.Name == name })
		if i < 0 {
			return "", invalid(at, "the job has no file %s; it has %s", job.Quote(name), fileNames(files))
		}
		named[name] = true
		if size += files[i].Size; size > maxAttached {
			return "", invalid(at, "the files that the messages name have more than %d bytes together", maxAttached)
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	for _, f := range files {
		if !named[f.Name] {
			return invalid("/messages", "no message names the file %s: a content part does, such as {\"type\": \"image_url\", \"image_url\": {\"url\": %q}}", job.Quote(f.Name), attachmentScheme+f.Name)
		}
	}
	return nil
}

func fileNames(files []job.File) string {
	if len(files) == 0 {
		return "none"
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = job.Quote(f.Name)
	}
	return strings.Join(names, ", ")
}

// attach puts the contents of files in the place of their names.
func (r request) attach(files []exec.File) error {
	if len(files) == 0 {
		return nil
	}
	messages, err := replaceAttachments(r.fields["messages"], func(name, _ string, dataURL bool) (string, error) {
		i := slices.IndexFunc(files, func(f exec.File) bool { return f.Name == name })
		if i < 0 {
			return "", &job.Fault{Code: "invalid_input", Message: fmt.Sprintf("the job has no file %s", job.Quote(name)), Class: job.Final}
		}
		content, err := os.ReadFile(files[i].Path)
		if err != nil {
			return "", fmt.Errorf("the file %s cannot be read: %w", job.Quote(name), err)
		}
		data := base64.StdEncoding.EncodeToString(content)
		if dataURL {
			data = "data:" + strings.ReplaceAll(files[i].ContentType, " ", "") + ";base64," + data
		}
		return data, nil
	})
	if err == nil {
		r.fields["messages"] = messages
	}
	return err
}

// replaceAttachments returns the messages with what replace returns in the place of each name of
// a file. It passes the name, the place of its content part and whether a data URL is wanted.
func replaceAttachments(messages json.RawMessage, replace func(name, at string, dataURL bool) (string, error)) (json.RawMessage, error) {
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(messages, &list); err != nil {
		return nil, err // parseRequest has checked it
	}
	for i, message := range list {
		var parts []json.RawMessage
		if json.Unmarshal(message["content"], &parts) != nil {
			continue // a text, or what the model's server is to judge
		}
		for n := range parts {
			var err error
			if parts[n], err = replaceInPart(parts[n], fmt.Sprintf("/messages/%d/content/%d", i, n), replace); err != nil {
				return nil, err
			}
		}
		message["content"] = encodeJSON(parts)
	}
	return encodeJSON(list), nil
}

func replaceInPart(text json.RawMessage, at string, replace func(name, at string, dataURL bool) (string, error)) (json.RawMessage, error) {
	var part, inner map[string]json.RawMessage
	var kind, value string
	if json.Unmarshal(text, &part) != nil || json.Unmarshal(part["type"], &kind) != nil {
		return text, nil
	}
	f, ok := attachmentFields[kind]
	if !ok || json.Unmarshal(part[kind], &inner) != nil || json.Unmarshal(inner[f.field], &value) != nil {
		return text, nil
	}
	name, ok := strings.CutPrefix(value, attachmentScheme)
	if !ok {
		return text, nil
	}
	data, err := replace(name, at+"/"+kind+"/"+f.field, f.dataURL)
	if err != nil {
		return nil, err
	}
	inner[f.field] = encodeJSON(data)
	if kind == "file" && inner["filename"] == nil {
		inner["filename"] = encodeJSON(name)
	}
	part[kind] = encodeJSON(inner)
	return encodeJSON(part), nil
}

var _ exec.FileChecker = (*Executor)(nil)
