package llm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const attached = `{"messages":[{"role":"system","content":"attachment:no"},{"role":"user","content":[
	{"type":"text","text":"attachment:no"},
	{"type":"image_url","image_url":{"url":"attachment:scan 1.png","detail":"low"}},
	{"type":"image_url","image_url":{"url":"https://example.com/a.png"}},
	{"type":"input_audio","input_audio":{"data":"attachment:voice.wav","format":"wav"}},
	{"type":"file","file":{"file_data":"attachment:a.pdf"}}]}]}`

// A message may name only files of its job, and each file must be named.
func TestMessagesNameFilesOfTheirJob(t *testing.T) {
	t.Parallel()
	e, err := New(Config{Models: []Model{{Name: "m", BaseURL: "http://127.0.0.1:1/v1"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	all := []job.File{{Name: "scan 1.png"}, {Name: "voice.wav"}, {Name: "a.pdf"}}
	for _, tt := range []struct {
		input       string
		files       []job.File
		field, says string
	}{
		{attached, all, "", ""},
		{`{"messages":[{"role":"user","content":"hello"}]}`, nil, "", ""},
		{attached, nil, "/messages/1/content/1/image_url/url", `no file "scan 1.png"; it has none`},
		{attached, all[:2], "/messages/1/content/4/file/file_data", `no file "a.pdf"; it has "scan 1.png", "voice.wav"`},
		{attached, append(all[:3:3], job.File{Name: "extra"}), "/messages", `no message names the file "extra"`},
		{`{"messages":[{"role":"user","content":"hello"}]}`, all[:1], "/messages", "no message names"},
		{attached, []job.File{{Name: "scan 1.png", Size: maxAttached}, {Name: "voice.wav", Size: 1}, {Name: "a.pdf"}}, "/messages/1/content/3/input_audio/data", "more than"},
	} {
		err := e.CheckFiles([]byte(tt.input), tt.files)
		var refusal *job.Error
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%v: %v", tt.files, err)
		case tt.says != "" && (!errors.As(err, &refusal) || refusal.Code != job.Invalid || refusal.Field != tt.field || !strings.Contains(refusal.Message, tt.says)):
			t.Errorf("%v: %v", tt.files, err)
		}
	}
	if !e.TakesFiles() {
		t.Error("its queues take no files")
	}
}

// The server gets the contents in the place of the names, and everything else unchanged.
func TestCallHasContentsOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files []exec.File
	for name, kind := range map[string]string{"scan 1.png": "image/png", "voice.wav": "audio/wav", "a.pdf": "application/pdf"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, exec.File{File: job.File{Name: name, ContentType: kind}, Path: path})
	}
	r := request{}
	if err := json.Unmarshal([]byte(attached), &r.fields); err != nil {
		t.Fatal(err)
	}
	if err := r.attach(files); err != nil {
		t.Fatal(err)
	}
	got := string(r.fields["messages"])
	for _, want := range []string{
		`"content":"attachment:no"`, `"text":"attachment:no"`, `"detail":"low","url":"data:image/png;base64,c2NhbiAxLnBuZw=="`,
		`"url":"https://example.com/a.png"`, `"data":"dm9pY2Uud2F2","format":"wav"`, `"file_data":"data:application/pdf;base64,YS5wZGY=","filename":"a.pdf"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it has no %s:\n%s", want, got)
		}
	}
	if err := os.Remove(files[0].Path); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(attached), &r.fields); err != nil {
		t.Fatal(err)
	}
	if err := r.attach(files); err == nil {
		t.Error("a missing file is no error")
	}
}
