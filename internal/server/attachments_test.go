package server

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// A job of a model has a picture as a file, and its message names it. A name without a file
// is refused at the submit.
func TestModelGetsFilesOfItsJob(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a cat"},"finish_reason":"stop"}]}`)
	}))
	t.Cleanup(upstream.Close)
	s := serve(t, func(c *config.Config) {
		c.Models = []config.Model{{Name: "m", BaseURL: upstream.URL + "/v1"}}
	})
	submit := func(url string) (int, map[string]any) {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		_ = w.WriteField("job", `{"queue":"chat","input":{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"`+url+`"}}]}]}}`)
		part, err := w.CreateFormFile("picture", "cat.png")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(part, "meow")
		_ = w.Close()
		return s.call("POST", "/v1/jobs", form.String(), "Content-Type", w.FormDataContentType(), "Prefer", "wait=60")
	}
	if status, j := submit("attachment:dog.png"); status != 400 || j["field"] != "/input/messages/0/content/0/image_url/url" {
		t.Errorf("a file that is not there: %d %v", status, j)
	}
	if status, j := submit("https://example.com/cat.png"); status != 400 {
		t.Errorf("a file that no message names: %d %v", status, j)
	}
	if status, j := submit("attachment:cat.png"); status != 200 || j["status"] != "succeeded" {
		t.Fatalf("%d %v", status, j)
	}
	if body := <-asked; !strings.Contains(body, `data:application/octet-stream;base64,bWVvdw==`) {
		t.Errorf("the model's server was sent %s", body)
	}
}
