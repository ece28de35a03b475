package cli

import (
	"bytes"
	"io"
	"mime/multipart"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// createFile creates a file of this size.
func createFile(t *testing.T, name string, size int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sentForm returns the job's JSON and the file names of the last form.
func sentForm(t *testing.T, f *fakeServer) (job string, files []string) {
	t.Helper()
	body := strings.TrimPrefix(f.lastRequest(), "POST /v1/jobs ")
	boundary, _, _ := strings.Cut(strings.TrimPrefix(body, "--"), "\r\n")
	for parts := multipart.NewReader(strings.NewReader(body), boundary); ; {
		p, err := parts.NextPart()
		if err == io.EOF {
			return job, files
		}
		if err != nil {
			t.Fatalf("%v in %.200q", err, body)
		}
		if text, _ := io.ReadAll(p); p.FormName() == "job" {
			job = string(text)
		} else {
			files = append(files, p.FileName())
		}
	}
}

func TestSubmitSendsFiles(t *testing.T) {
	t.Parallel()
	one, two := createFile(t, "scan.png", 3), createFile(t, "notes.txt", 0)
	for rule, tt := range map[string]struct {
		stdin string
		args  []string
		job   string
		files string
	}{
		"one file, no input":           {"not read", []string{"--file", one}, `{"queue":"sim","input":null}`, "scan.png"},
		"two files, an input":          {"", []string{`{"dpi":300}`, "--file", one, "--file", two}, `{"queue":"sim","input":{"dpi":300}}`, "scan.png notes.txt"},
		"an input from standard input": {"[1]", []string{"-", "--file", two}, `{"queue":"sim","input":[1]}`, "notes.txt"},
	} {
		t.Run(rule, func(t *testing.T) {
			f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted)
			newTestEnv(f.URL).withInput(tt.stdin).want(t, exitOK, "job_1\n", append([]string{"submit", "sim"}, tt.args...)...)
			if job, files := sentForm(t, f); job != tt.job || strings.Join(files, " ") != tt.files {
				t.Errorf("sent %s and %v", job, files)
			}
		})
	}
}

func TestSubmitRefusesMissingFiles(t *testing.T) {
	t.Parallel()
	for path, message := range map[string]string{
		filepath.Join(t.TempDir(), "missing"): "no such file",
		t.TempDir():                           "is a directory",
	} {
		f := newFakeServer(t)
		s := newTestEnv(f.URL)
		s.want(t, exitUsage, "", "submit", "sim", "--file", path)
		if s.wantErr(t, message); f.lastRequest() != "" {
			t.Errorf("the request was %s", f.lastRequest())
		}
	}
}

// On a terminal, a large upload shows a progress bar and removes it at the end.
func TestSubmitShowsUploadProgress(t *testing.T) {
	t.Parallel()
	path := createFile(t, "long.wav", minProgressBytes)
	f := newFakeServer(t).respond("POST /v1/jobs", 202, accepted)
	s := newTestEnv(f.URL).terminal()
	s.want(t, exitOK, "job_1\n", "submit", "sim", "--file", path)
	s.wantErr(t, "100% Sending long.wav\r\x1b[K")
	s = newTestEnv(f.URL)
	s.want(t, exitOK, "job_1\n", "submit", "sim", "--file", path)
	if s.err.Len() != 0 {
		t.Errorf("standard error is %q", s.err.String())
	}
}
