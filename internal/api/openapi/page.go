package openapi

import (
	"bytes"
	_ "embed" // the page's own files
	"encoding/json"
	"html/template"
	"regexp"
	"strings"
)

//go:embed web/page.html
var layout string

//go:embed web/page.css
var styles string

//go:embed web/page.js
var script string

// view is what the page shows.
type view struct {
	Title, Text string
	Groups      []group
	Schemas     []schema
	Styles      template.CSS
	Script      template.JS
}

// group is the calls of one tag.
type group struct {
	Name, Text string
	Calls      []callView
}

// callView is a call as it is shown.
type callView struct {
	ID, Method, Path, Summary, Text string
	Socket, Token                   bool // it is a WebSocket; a watch token opens it
	Curl                            []string
	Takes                           []row // parameters
	Body, Sends, Receives           *schema
	Answers                         []answer
}

// answer is one of a call's answers.
type answer struct {
	Status, Text string
	Codes        []string
	Headers      []string
	Body         []part
	Events       []row
	Example      string
}

// page renders the document, with nothing that a browser would have to ask for.
func page() ([]byte, error) {
	doc, err := document()
	if err != nil {
		return nil, err
	}
	t, err := template.New("page").Funcs(template.FuncMap{"prose": prose}).Parse(layout)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, viewOf(doc))
	return out.Bytes(), err
}

var code = regexp.MustCompile("`([^`]+)`")

// prose is a description as HTML: its code and its paragraphs.
func prose(text string) template.HTML {
	text = code.ReplaceAllString(template.HTMLEscapeString(strings.TrimSpace(text)), "<code>$1</code>")
	return template.HTML(strings.ReplaceAll(text, "\n\n", "<p>")) // it was escaped
}

func viewOf(doc tree) view {
	v := view{Title: doc.at("info", "title").text(), Text: doc.at("info", "description").text(), Styles: template.CSS(styles), Script: template.JS(script)}
	for _, tag := range doc.at("tags").items() {
		g := group{Name: tag.at("name").text(), Text: tag.at("description").text()}
		for _, c := range callsOf(doc) {
			if c.at("tags").items()[0].text() == g.Name {
				g.Calls = append(g.Calls, viewOfCall(doc, c))
			}
		}
		v.Groups = append(v.Groups, g)
	}
	for _, s := range doc.at("components", "schemas").pairs() {
		v.Schemas = append(v.Schemas, *schemaOf(doc, s.key, s.value))
	}
	return v
}

func viewOfCall(doc tree, c call) callView {
	socket := c.at("x-websocket")
	v := callView{
		ID: c.at("operationId").text(), Method: c.method, Path: c.path, Socket: socket.node != nil, Token: len(c.at("security").items()) > 1,
		Summary: c.at("summary").text(), Text: c.at("description").text(), Curl: curls(c),
		Body: bodyOf(doc, c), Sends: schemaOf(doc, "", socket.at("sends")), Receives: schemaOf(doc, "", socket.at("receives")),
	}
	for _, p := range append(c.shared, c.at("parameters").items()...) {
		p = doc.follow(p)
		r := rowOf(doc, p.at("name").text(), p.at("schema"))
		if r.Where, r.Text = p.at("in").text(), p.at("description").text(); p.at("required").text() == "true" {
			r.Mark = "required"
		}
		v.Takes = append(v.Takes, r)
	}
	for _, a := range c.at("responses").pairs() {
		v.Answers = append(v.Answers, viewOfAnswer(doc, a.key, doc.follow(a.value)))
	}
	return v
}

func bodyOf(doc tree, c call) *schema {
	media := c.at("requestBody", "content", "application/json")
	return schemaOf(doc, "", media.at("schema"))
}

func viewOfAnswer(doc tree, status string, a tree) answer {
	v := answer{Status: status, Text: a.at("description").text(), Codes: codesOf(doc, a)}
	for _, h := range a.at("headers").pairs() {
		if h.key != "X-Request-ID" { // of every answer
			v.Headers = append(v.Headers, h.key)
		}
	}
	for _, media := range a.at("content").pairs() {
		if media.key == "application/problem+json" {
			continue
		}
		if v.Body = typeOf(doc, media.value.at("schema")); v.Body == nil || media.key != "application/json" {
			v.Body = []part{{Text: media.key}}
		}
		for _, e := range media.value.at("x-events").pairs() {
			v.Events = append(v.Events, rowOf(doc, e.key, e.value))
		}
		v.Example = exampleOf(doc, media.value)
	}
	return v
}

// exampleOf is an example of what a call takes or answers, laid out to be read.
func exampleOf(doc, media tree) string {
	if text := media.at("example"); text.node != nil {
		return indented(text)
	}
	if all := doc.follow(media.at("schema")).at("examples").items(); len(all) > 0 {
		return indented(all[0])
	}
	return ""
}

func indented(x tree) string {
	if text := x.text(); text != "" {
		return text
	}
	var out bytes.Buffer
	if err := json.Indent(&out, x.appendJSON(nil), "", "  "); err != nil {
		return ""
	}
	return out.String()
}

const address = "127.0.0.1:8080"

// curls are commands that make the call.
func curls(c call) []string {
	path := regexp.MustCompile(`\{(\w+)\}`).ReplaceAllStringFunc(c.path, func(m string) string {
		return "$" + strings.ToUpper(strings.Trim(m, "{}"))
	})
	if c.at("x-websocket").node != nil {
		return []string{"ws://" + address + path}
	}
	command := "curl -s"
	if strings.HasSuffix(path, "/events") {
		command = "curl -sN"
	}
	content := c.at("requestBody", "content")
	example := content.at("application/json", "example")
	if c.method != "GET" && example.node == nil {
		command += " -X " + c.method
	}
	command += " http://" + address + path
	if example.node == nil {
		return []string{command}
	}
	all := []string{command + " \\\n  -H 'Content-Type: application/json' \\\n  -d '" + strings.ReplaceAll(string(example.appendJSON(nil)), "'", `'\''`) + "'"}
	if content.at("multipart/form-data").node != nil {
		all = append(all, command+" \\\n  -F 'job={\"queue\":\"ocr\"}' \\\n  -F page=@scan.png")
	}
	return all
}
