package server

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// The example reads its page through a running server.
func TestRecogniserExampleReadsItsPage(t *testing.T) {
	if testing.Short() {
		t.Skip("runs tesseract")
	}
	if _, err := exec.LookPath("tesseract"); err != nil {
		const how = "the example runs tesseract, which is not installed: sudo apt-get install tesseract-ocr"
		if os.Getenv("MEANWHILE_CI") != "" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	t.Chdir("../..") // the example's paths are relative to the root
	example, err := config.Load(config.Sources{File: "examples/recogniser/meanwhile.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(c *config.Config) { c.Queues = example.Queues })
	page, err := os.ReadFile("examples/recogniser/page.png")
	if err != nil {
		t.Fatal(err)
	}
	status, j := s.submitFiles(`{"queue":"ocr"}`, map[string]string{"page.png": string(page)}, "Prefer", "wait=60")
	if status != 200 || j["status"] != "succeeded" {
		t.Fatalf("%d %v", status, j)
	}
	if status, text := s.text("GET", "/v1/jobs/"+j["id"].(string)+"/result", ""); status != 200 || !strings.Contains(text, "THE WAITING ROOM") {
		t.Errorf("%d %q", status, text)
	}
	status, j = s.submitFiles(`{"queue":"ocr"}`, map[string]string{"page.png": "no picture"}, "Prefer", "wait=60")
	if status != 200 || j["status"] != "failed" || j["attempt"] != 1.0 {
		t.Errorf("what is no picture: %d %v", status, j)
	}
	s.quit()
}
