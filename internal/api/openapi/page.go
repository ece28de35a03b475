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

// pageData is the data of the page's template.
type pageData struct {
	Title, Text string
	Groups      []group
	Schemas     []schemaView
	Styles      template.CSS
	Script      template.JS
}

// group holds the calls of one tag.
type group struct {
	Name, Text string
	Calls      []callView
}

// callView is the data of one call.
type callView struct {
	ID, Method, Path, Summary, Text string
	Socket, Token                   bool // the call is a WebSocket; a watch token opens it
	Curl                            []string
	Takes                           []row // parameters
	Body, Sends, Receives           *schemaView
	Answers                         []responseView
}

// responseView is the data of one response of a call.
type responseView struct {
	Status, Text string
	Codes        []string
	Headers      []string
	Body         []part
	Events       []row
	Example      string
}

// page renders the document as HTML that loads no other files.
func page() ([]byte, error) {
	doc, err := loadDocument()
	if err != nil {
		return nil, err
	}
	t, err := template.New("page").Funcs(template.FuncMap{"prose": toHTML}).Parse(layout)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, newPageData(doc))
	return out.Bytes(), err
}

var code = regexp.MustCompile("`([^`]+)`")

// toHTML converts a description to HTML: code in backquotes, and paragraphs.
func toHTML(text string) template.HTML {
	text = code.ReplaceAllString(template.HTMLEscapeString(strings.TrimSpace(text)), "<code>$1</code>")
	return template.HTML(strings.ReplaceAll(text, "\n\n", "<p>")) // escaped above
}

func newPageData(doc tree) pageData {
	v := pageData{Title: doc.at("info", "title").text(), Text: doc.at("info", "description").text(), Styles: template.CSS(styles), Script: template.JS(script)}
	for _, tag := range doc.at("tags").items() {
		g := group{Name: tag.at("name").text(), Text: tag.at("description").text()}
		for _, c := range operations(doc) {
			if c.at("tags").items()[0].text() == g.Name {
				g.Calls = append(g.Calls, newCallView(doc, c))
			}
		}
		v.Groups = append(v.Groups, g)
	}
	for _, s := range doc.at("components", "schemas").pairs() {
		v.Schemas = append(v.Schemas, *newSchemaView(doc, s.key, s.value))
	}
	return v
}

func newCallView(doc tree, c operation) callView {
	socket := c.at("x-websocket")
	v := callView{
		ID: c.at("operationId").text(), Method: c.method, Path: c.path, Socket: socket.node != nil, Token: len(c.at("security").items()) > 1,
		Summary: c.at("summary").text(), Text: c.at("description").text(), Curl: curlCommands(c),
		Body: newSchemaView(doc, "", c.at("requestBody", "content", "application/json", "schema")), Sends: newSchemaView(doc, "", socket.at("sends")), Receives: newSchemaView(doc, "", socket.at("receives")),
	}
	for _, p := range append(c.pathParameters, c.at("parameters").items()...) {
		p = doc.resolve(p)
		r := newRow(doc, p.at("name").text(), p.at("schema"))
		if r.Where, r.Text = p.at("in").text(), p.at("description").text(); p.at("required").text() == "true" {
			r.Mark = "required"
		}
		v.Takes = append(v.Takes, r)
	}
	for _, a := range c.at("responses").pairs() {
		v.Answers = append(v.Answers, newResponseView(doc, a.key, doc.resolve(a.value)))
	}
	return v
}

func newResponseView(doc tree, status string, a tree) responseView {
	v := responseView{Status: status, Text: a.at("description").text(), Codes: errorCodes(doc, a)}
	for _, h := range a.at("headers").pairs() {
		if h.key != "X-Request-ID" { // every response has it
			v.Headers = append(v.Headers, h.key)
		}
	}
	for _, media := range a.at("content").pairs() {
		if media.key == "application/problem+json" {
			continue
		}
		if v.Body = typeParts(doc, media.value.at("schema")); v.Body == nil || media.key != "application/json" {
			v.Body = []part{{Text: media.key}}
		}
		for _, e := range media.value.at("x-events").pairs() {
			v.Events = append(v.Events, newRow(doc, e.key, e.value))
		}
		v.Example = example(doc, media.value)
	}
	return v
}

// example returns an example of a body, indented.
func example(doc, media tree) string {
	if text := media.at("example"); text.node != nil {
		return indentJSON(text)
	}
	if all := doc.resolve(media.at("schema")).at("examples").items(); len(all) > 0 {
		return indentJSON(all[0])
	}
	return ""
}

func indentJSON(x tree) string {
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

// curlCommands returns commands that make the call.
func curlCommands(c operation) []string {
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
