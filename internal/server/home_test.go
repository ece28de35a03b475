package server

import (
	"html"
	"io"
	"regexp"
	"strings"
	"testing"
)

const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// A browser at / gets a page with the queues and links that lead somewhere. It may load
// nothing but its own style.
func TestHomePage(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	_, failed := s.call("POST", "/v1/jobs", `{"queue": "sim", "input": {"fail_attempts": 1, "fail_code": "final:broken"}}`)
	s.call("GET", "/v1/jobs/"+failed["id"].(string), "", "Prefer", "wait=30")
	res := s.send("GET", "/", "", "Accept", browserAccept)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%s %v: %s", res.Status, err, text)
	}
	page := string(text)
	for _, part := range []string{"<code>chat</code>", "<td>llm<td>0 of ", "<code>sim</code>", `<a href="/v1/jobs?queue=sim&amp;status=failed">1</a>`, "curl -s " + s.URL() + "/v1/jobs"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q:\n%s", part, page)
		}
	}
	links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1)
	if len(links) < 4 {
		t.Errorf("the page has the links %v", links)
	}
	for _, link := range links {
		if status, _ := s.text("GET", html.UnescapeString(link[1]), ""); status != 200 {
			t.Errorf("the link to %s answers %d", link[1], status)
		}
	}
	if regexp.MustCompile(`(?i)<(script|img|link|iframe)|(src|href)="?(https?:)?//|@import|url\(`).MatchString(page) {
		t.Error("the page loads something")
	}
	if policy := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("its policy is %q", policy)
	}
}

// Other clients get the answer for a path that is no call, and other methods too.
func TestHomePageIsForBrowsersOnly(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, call := range [][]string{{"GET", "*/*"}, {"GET", "application/json"}, {"GET", ""}, {"POST", browserAccept}, {"DELETE", "*/*"}} {
		if status, j := s.call(call[0], "/", "", "Accept", call[1]); status != 404 || j["code"] != "not_found" || !strings.Contains(j["detail"].(string), "/docs") {
			t.Errorf("%s with Accept %q: %d %v", call[0], call[1], status, j)
		}
	}
	res := s.send("GET", "/", "", "Accept", browserAccept, "Origin", "https://evil.example")
	defer res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("a page of another origin gets %s", res.Status)
	}
}
